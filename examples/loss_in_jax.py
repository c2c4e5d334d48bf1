"""The loss alone in a JAX program: jitted and differentiated."""

import jax
import jax.numpy as jnp

from agnostic_xent import cross_entropy


def loss(w, x, labels):
    """Cross entropy of a linear model."""
    return cross_entropy(x @ w, labels, label_smoothing=0.1)


@jax.jit
def step(w, x, labels):
    """Take a step of gradient descent."""
    value, slope = jax.value_and_grad(loss)(w, x, labels)
    return w - 0.5 * slope, value


key_x, key_w = jax.random.split(jax.random.key(0))
x = jax.random.normal(key_x, (256, 8))
labels = jnp.argmax(x @ jax.random.normal(key_w, (8, 4)), axis=1)
w = jnp.zeros((8, 4))
for i in range(101):
    w, value = step(w, x, labels)
    if i % 20 == 0:
        print(f"step {i:3d}: loss {value:.4f}")
