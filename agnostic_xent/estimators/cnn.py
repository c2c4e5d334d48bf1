"""A classifier of images, signals and volumes with scikit-learn's conventions, on any arrays."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from ..core.arrays import Array, array_namespace, device
from ..core.checks import check_channels_first, check_choice, integer, number
from ..core.communication import Communicator, first_rank_first
from ..core.conversion import to_backend, to_numpy
from ..evaluation.explanations import grad_cam, integrated_gradients, occlusion
from ..network.containers import Sequential
from ..network.exchange import Exported, after_division
from ..network.inference import predictor_for
from ..network.layers import Layer, Params, Shape
from ..network.models import default_cnn
from ..network.synchronized import synchronize_batch_norm
from ..training.averages import Averaged
from ..training.loop import Callback, Loss
from ..training.mixing import Mix
from ..training.optimizers import AdamW, Optimizer
from ..training.recipe import (
    CHANGES,
    RATE,
    AtChance,
    augmented,
    epochs_of,
    recipe_optimizer,
    some_of,
    standardized,
    standardizes,
)
from .chosen_loss import chosen_loss
from .classifier import Classifier, first
from .fitting import Problem, check_same_samples, problem, train
from .levels import WHITE, Levels
from .samples import (
    Labelled,
    Samples,
    as_array,
    as_indices,
    check_home,
    checked_labels,
    checked_samples,
    dtype_name,
)

__all__ = ["CNNClassifier"]

OWN_RATE = 1e-3
"""The learning rate of a model that is not the default one."""
EXPLANATIONS: dict[str, Callable[..., Array]] = {
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "grad_cam": grad_cam,
}
PREDICTED = 512
"""Images that are predicted at a time."""
LONG = 4
"""Times as many columns as rows that an image rarely has, and a signal with channels often."""


class CNNClassifier(Classifier):
    """Classifier of images, signals or volumes by a convolutional network, on the cross entropy.

    Parameters
    ----------
    model : layer, optional
        Such as ``Sequential(..., Dense(classes))``: one logit for each class, also of two. By
        default `convnet`; of signals `signal_cnn`, of volumes `video_cnn`. One that begins by
        `Standardize` gets the statistics of the images.
    image_shape : tuple of int, optional
        (H, W), (C, H, W) or (C, D, H, W), of signals (L,) or (C, L), where X is flat. By default a
        square of the features where their number is one, else a row. Where X has images, it must be
        theirs.
    signals : bool
        Whether X of shape (N, C, L) or (N, L) holds signals. By default X of three dimensions holds
        images (N, H, W). Four dimensions are images (N, C, H, W), five volumes (N, C, D, H, W).
    optimizer : optimizer, optional
        `SGD` or `AdamW`, whose learning rate may be a schedule. By default `AdamW` with a weight
        decay of 0.05, whose rate rises for a twentieth of the steps, of signals for a quarter, and
        then falls to 0 along half a cosine; in ``partial_fit``, which cannot know the last step, it
        is constant.
    learning_rate : float, optional
        The greatest rate of the default optimizer. By default 5e-3 for the default model, whose
        batch normalization bears it, and 1e-3 for another one.
    augment : {None, "images", "sensors"} or sequence of layer
        Layers that change the images in training alone, behind `Standardize` where a model begins
        by it, else in front: "images" are `RandomFlip` and `RandomShift` by up to a twelfth of
        each side, for pictures whose mirror image is of the same class; not for digits. "sensors"
        is `RandomRotation3d` by up to 25 degrees, for signals of three-axis sensors; it is always
        in front. `Cutout` and `Dropout` are others.
    mix : Mixup or CutMix, optional
        Trains on mixtures of two images and of their targets, of which then are the losses and
        accuracies of the training. `CutMix` is for images alone.
    epochs : int, optional
        Passes through the images. By default 20, and more, up to 100, of so few images that those
        are less than 640 steps.
    batch_size : int
        Images a step.
    class_weight : dict, "balanced" or None
        Factor of the images' weights by label; "balanced" gives all classes the same total.
    class_prior : array-like, shape (classes,), "empirical" or None
        How often each class occurs in training, as shares or counts; "empirical" is the weight of
        each in y. With it the network learns scores that are free of that, and predicts as if all
        classes were equally frequent, which finds rare ones better: see `cross_entropy`.
    loss : operation, optional
        `cross_entropy`, the default, `focal_loss`, `generalized_cross_entropy` (for labels of which
        many are wrong) or `jensen_shannon_divergence`; or such as
        ``functools.partial(cross_entropy, label_smoothing=0.1)``, of the options gamma,
        label_smoothing, mixing, q and z_loss.
    early_stopping : bool
        Whether to hold out a part, and to keep the parameters of the epoch after which its loss was
        least.
    validation_fraction : float
        Size of that part, in (0, 1).
    n_iter_no_change : int
        Epochs without improvement after which to stop.
    warm_start : bool
        Whether ``fit`` starts from the parameters of the last fit.
    random_state : int, RandomState or None
        Draws the first parameters, shuffles the images, drives dropout, and chooses the validation
        part.
    callbacks : sequence of Callback
        Of `fit`, such as `Progress`.
    checkpoint : path of a folder, optional
        Where ``fit`` keeps the run after each epoch. The same ``fit``, of the same samples, goes on
        from there after an interruption, also with more epochs. It needs a ``random_state`` that is
        an integer, and no early stopping; not for ``partial_fit``.
    communicator : Communicator, optional
        Such as `MPICommunicator`: the ranks that train together, each with a share of every batch.
        All call ``fit`` with the same arguments and get the same result. A pickled classifier has
        none.
    thresholds : float or array-like, shape (classes,)
        Where samples have several labels: the probability above which ``predict`` gives a label.

    Attributes
    ----------
    model_ : layer
        What was trained.
    params_ : dict of str to array
        Its parameters, of the library, device and floating dtype of X; see `save_params`.
    classes_ : numpy.ndarray
        The labels in order.
    image_shape_ : tuple of int
        (C, H, W), (C, L) or (C, D, H, W).
    n_iter_ : int
        Epochs done.
    loss_curve_ : list of float
        The mean loss of each epoch.
    validation_loss_curve_ : list of float
        Of the held-out part after each epoch, if there is one.
    history_ : History
        Loss, accuracy, learning rate and seconds of each epoch.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn; an image of (C, H, W) has C * H * W features.

    Notes
    -----
    X may be an array of NumPy, CuPy, torch, JAX or another library that follows the Array API
    standard, and the parameters and predictions are of the same. Integers become float32. Images of
    uint8 are divided by 255, as are other integers from 0 to between 128 and 255, and then so are
    all later ones, whatever their dtype; a classifier of numbers from 0 to 1 takes integers as
    levels. The default model takes numbers of any scale; others train best on those of about -1 to
    1. Its batch normalization takes the statistics of all images of a batch, whatever their
    weights. Memory-mapped and dask arrays are read batch by batch and never whole. Predictions of
    the former are NumPy arrays, of the latter dask arrays: block by block, when they are asked for,
    wherever dask computes.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros((20, 8, 8), dtype="float32")
    >>> x[::2, :4] = 1
    >>> labels = ["top", "none"] * 10
    >>> classifier = CNNClassifier(epochs=5, random_state=0)
    >>> classifier.fit(x, labels).score(x, labels)
    1.0
    """

    _fitted: ClassVar[tuple[str, ...]] = ("params_", "_state")
    _instead_of_none: ClassVar[dict[str, Any]] = {"optimizer": AdamW(OWN_RATE)}
    _levels = astuple(Levels())  # a pickle has no class that may move
    signals = False  # what older pickles, which do not say so, were fitted with
    mix = class_prior = loss = None
    model_: Layer
    params_: Params

    def __init__(
        self,
        model: Layer | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        signals: bool = False,
        optimizer: Optimizer | None = None,
        learning_rate: float | None = None,
        augment: Any = None,
        mix: Mix | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        class_weight: Any = None,
        class_prior: Any = None,
        loss: Loss | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        random_state: Any = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        communicator: Communicator | None = None,
        thresholds: Any = 0.5,
    ):
        self.model = model
        self.image_shape = image_shape
        self.signals = signals
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.augment = augment
        self.mix = mix
        self.epochs = epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.class_prior = class_prior
        self.loss = loss
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.communicator = communicator
        self.thresholds = thresholds

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the network.

        Ctrl-C ends the training and keeps what the finished epochs have learnt, with a warning.

        Parameters
        ----------
        X : array or array-like, shape (N, C, H, W), (N, H, W), (N, C, D, H, W) or (N, features)
            Images or volumes, with ``signals`` (N, C, L) or (N, L); dense and finite. Lists of
            them, and datasets of h5py or zarr, are read whole.
        y : array or array-like, shape (N,)
            Labels of any type. Or a table (N, classes): of floats, the probabilities of the classes
            (soft labels); of integers 0 and 1, or booleans, whether a sample has each of several
            labels. Then classes are numbered.
        sample_weight : array or array-like, shape (N,), or float, optional
            Weight of each image, >= 0.
        groups : array-like, shape (N,), optional
            What belongs together, such as the person of each image. With ``early_stopping`` whole
            groups are held out, and ``validation_fraction`` is a part of them.

        Returns
        -------
        CNNClassifier
            Itself.
        """
        X, epochs = as_array(X), self.epochs
        if epochs is not None:
            epochs = integer("epochs", epochs)
        data = self._labelled(X, y, sample_weight, groups=groups)
        continued = self.warm_start and hasattr(self, "params_")
        return self._train(X, data, continued, epochs=epochs)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Pass once through more images; the optimizer goes on where it was.

        Parameters
        ----------
        X, y, sample_weight
            As for ``fit``.
        classes : array-like, optional
            All labels that will come; needed at the first call, unless y is a table.

        Returns
        -------
        CNNClassifier
            Itself.
        """
        if isinstance(self.class_prior, str):
            raise ValueError(
                "class_prior must be numbers, or None, in partial_fit, which cannot count labels "
                f"that are still to come; got {self.class_prior!r}"
            )
        X = as_array(X)
        data = self._labelled(X, y, sample_weight, self._partial_classes(classes, y))
        return self._train(X, data, hasattr(self, "params_"), epochs=1, partial=True)

    def attributions(
        self, X: Any, y: Any = None, *, method: str = "integrated_gradients", **options: Any
    ) -> Array:
        """Return what in each image speaks for a label, and how much.

        Parameters
        ----------
        X : array or array-like
            Images, as for ``fit``, in the same library and on the same device.
        y : array or array-like, shape (N,), optional
            The labels to explain. By default those that are predicted.
        method : {"integrated_gradients", "occlusion", "grad_cam"}
            Which explanation: `integrated_gradients`, `occlusion` or `grad_cam`.
        **options
            Of that function, such as ``window`` of `occlusion`. Images of uint8 are divided by 255
            before; a ``baseline`` is not.

        Returns
        -------
        array, shape (N, C, H, W), or (N, H, W) of "occlusion" and "grad_cam"
            Of the library of X; of signals (N, C, L) or (N, L), and of volumes with a D before H.
        """
        check_is_fitted(self)
        check_choice("method", method, tuple(EXPLANATIONS))
        samples = self._samples(X, reset=False)
        check_home(self, samples.like, first(self.params_), "attributions")
        xp, labels, found = array_namespace(samples.like), None, []
        if y is not None:
            labels = as_indices(checked_labels(self, y, samples), self.classes_)
        for start in range(0, len(samples), PREDICTED):
            some = slice(start, min(start + PREDICTED, len(samples)))
            images = xp.reshape(samples.take(some), (-1, *self.image_shape_))
            target = None if labels is None else samples.indices(labels[some])
            explain = EXPLANATIONS[method]
            found.append(explain(self.model_, self.params_, images, target, **options))
        return xp.concat(found, axis=0)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _train(
        self, X: Any, data: Labelled, continued: bool, *, epochs: int | None, partial: bool = False
    ) -> Self:
        batch_size = integer("batch_size", self.batch_size)
        rng = self._rng()
        shape = self._image_shape(getattr(X, "shape", ()), data.samples.features)
        if continued:
            last = self._state["last"] if partial and self._state else self.params_
            model, params = self.model_, self._continued(last, data)
        else:
            model, params = self._start(shape, data, rng)
        held_out = None if partial else self._held_out(data)
        samples = len(data.samples) * (1 - held_out.fraction if held_out else 1)
        steps = math.ceil(samples / batch_size)
        epochs = epochs_of(steps) if epochs is None else epochs
        optimizer = self._optimizer(0 if partial else epochs * steps, signals=len(shape) == 2)
        if partial:
            optimizer = Averaged(optimizer, state=self._state if continued else None)
        ranks = self._ranks
        together = synchronize_batch_norm(model, ranks) if ranks.size > 1 else model
        loss = chosen_loss(self.loss, self.class_prior, data)
        task = problem(together, len(data.classes), data, shape, loss)
        task = replace(task, model=augmented(task.model, self._augmentation(shape)))
        trained = train(
            task,
            params,
            optimizer,
            epochs=epochs,
            batch_size=batch_size,
            rng=rng,
            communicator=ranks,
            held_out=held_out,
            callbacks=[*self.callbacks, self._at_chance(data, batch_size)],
            checkpoint=None if partial else self._checked_checkpoint(task),
            mix=self.mix,
        )
        self.model_, self.params_ = model, trained.params
        self.classes_, self._several, self.image_shape_ = data.classes, data.several, shape
        self._remember(trained, trained.state, partial)
        return self

    def _optimizer(self, steps: int, *, signals: bool) -> Optimizer:
        """Return what trains for so many steps, or, if they are 0, for no known number."""
        if self.optimizer is not None:
            if self.learning_rate is not None:
                raise ValueError(
                    "learning_rate is that of the default optimizer: give it to the optimizer, or "
                    "set optimizer__learning_rate"
                )
            return self.optimizer
        rate = RATE if self.model is None else OWN_RATE
        if self.learning_rate is not None:
            rate = number("learning_rate", self.learning_rate, "(0, inf)")
        return recipe_optimizer(rate, steps, signals=signals) if steps else AdamW(rate)

    def _augmentation(self, shape: Shape) -> Sequence[Layer]:
        """Return the layers that change images in training, after a try on a blank one."""
        layers = self.augment or ()
        if isinstance(layers, str) and layers in CHANGES:
            layers = CHANGES[layers](shape)
        if isinstance(layers, str) or not isinstance(layers, Sequence):
            raise ValueError(
                f'augment must be None, "images", "sensors" or a list of layers, got {layers!r}'
            )
        params, made = Sequential(*layers).init(0, shape) if layers else ({}, shape)
        if params or made != shape:
            raise ValueError(
                f"augment must be layers without parameters that keep the shape of images, {shape}"
                f"; got {self.augment!r}, which make {made}"
            )
        return layers

    def _checked_checkpoint(self, task: Problem) -> str | os.PathLike[str] | None:
        """Return the folder of the run, after a check that it is of the same samples."""
        folder = self.checkpoint
        if folder is None:
            return None
        if not isinstance(self.random_state, (int, np.integer)):
            raise ValueError(
                "random_state must be an integer with a checkpoint, so that a second fit is the "
                f"same run; got {self.random_state!r}"
            )
        if self.early_stopping:
            raise ValueError(
                "early_stopping must be False with a checkpoint, which keeps the last epoch alone"
            )
        first_rank_first(self._ranks, lambda: check_same_samples(Path(folder), task))
        return folder

    def _exported(self) -> Exported:
        shape, divisor = self.image_shape_, WHITE if Levels(*self._levels).divided else 1
        model, params = after_division(self.model_, self.params_, shape, divisor)
        return Exported(model, params, shape, self.classes_.tolist())

    def _at_chance(self, data: Labelled, batch_size: int) -> AtChance:
        """Return what warns of a training that learns nothing."""
        counts = data.mass
        if data.several:
            counts = np.stack([data.mass, data.total - data.mass], axis=1)
        return AtChance(counts, batch_size, lambda text: warnings.warn(text, stacklevel=2))

    def _start(
        self, shape: tuple[int, ...], data: Labelled, rng: np.random.Generator
    ) -> tuple[Layer, Params]:
        classes, like = len(data.classes), data.samples.like
        model = default_cnn(classes, shape) if self.model is None else self.model
        params, made = model.init(rng, shape)
        if made != (classes,):
            raise ValueError(
                f"model must make one logit for each of {classes} classes from an image of shape "
                f"{shape}, but it makes {made}"
            )
        if standardizes(model):
            images = to_numpy(data.samples.take(some_of(len(data.samples)))).reshape(-1, *shape)
            params = standardized(model, params, images)
        host = {name: w.astype(dtype_name(like)) for name, w in params.items()}
        return model, to_backend(host, array_namespace(like), device(like))

    def _image_shape(self, given: Any, features: int) -> tuple[int, ...]:
        """Return (C, H, W) of one image, (C, L) of a signal, or (C, D, H, W) of a volume."""
        images = self._shape_in(given)
        if self.image_shape is None:
            if images is not None:
                self._check_layout(given)
                return images
            side = math.isqrt(features)
            if self.signals:
                return 1, features
            return (1, side, side) if side**2 == features else (1, 1, features)
        fewest = 1 if self.signals else 2
        shape = tuple(self.image_shape)
        shape = (1, *shape) if len(shape) == fewest else shape
        if images is not None and images != shape:
            raise ValueError(
                f"image_shape must be that of the images in X, {images}, or None; "
                f"got {self.image_shape!r}"
            )
        ranks = (2,) if self.signals else (3, 4)
        if len(shape) not in ranks or math.prod(shape) != features:
            accepted = "(L,) or (C, L)" if self.signals else "(H, W), (C, H, W) or (C, D, H, W)"
            raise ValueError(
                f"image_shape must be {accepted} with the {features} numbers of a row of X, got "
                f"{self.image_shape!r}"
            )
        return shape

    def _shape_in(self, given: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of a sample in X of a shape; None where X has rows."""
        if self.signals and len(given) > 3:
            raise ValueError(f"signals must have shape (N, C, L) or (N, L), got {tuple(given)}")
        if len(given) == 3 and not self.signals:
            return 1, *given[1:]
        return tuple(given[1:]) if len(given) in (3, 4, 5) else None

    def _check_layout(self, given: tuple[int, ...]) -> None:
        """Raise ValueError or warn where X looks as if its axes were meant otherwise."""
        check_channels_first("X", given)
        if len(given) == 3 and not self.signals and 2 <= given[1] <= given[2] // LONG:
            n, few, many = given
            warnings.warn(
                f"X of shape ({n}, {few}, {many}) is taken for images of {few} x {many} pixels; "
                f"CNNClassifier(signals=True) takes it for {few} channels of {many} numbers",
                stacklevel=4,
            )
        if len(given) == 3 and self.signals and given[1] >= LONG * given[2]:
            n, many, few = given
            warnings.warn(
                f"X of shape ({n}, {many}, {few}) is taken for signals of {many} channels of {few} "
                "numbers; if time is the axis in the middle, give numpy.moveaxis(X, -1, 1)",
                stacklevel=4,
            )

    def _samples(self, X: Any, *, reset: bool) -> Samples:
        X = as_array(X)
        given = tuple(getattr(X, "shape", ()))
        shape = self._shape_in(given)
        if shape is not None:
            if not reset and shape != self.image_shape_:
                check_channels_first("X", given)
                raise ValueError(
                    f"X must hold images of shape {self.image_shape_}, as fitted; got {given}"
                )
            X = array_namespace(X).reshape(X, (given[0], math.prod(given[1:])))
        dtypes = ("float32", "float64") if reset else (dtype_name(first(self.params_)),)
        samples = checked_samples(self, X, reset=reset, dtypes=dtypes)
        looked_at = X if hasattr(X, "dtype") else samples.x
        if reset:
            self._levels = astuple(Levels.of(looked_at))
        return samples.divided(Levels(*self._levels).divisor(looked_at))

    def _logits(self, samples: Samples) -> Array:
        xp = array_namespace(samples.like)
        predicted, logits = predictor_for(self.model_, self.params_, len(samples)), []
        for start in range(0, len(samples), PREDICTED):
            x = samples.take(slice(start, min(start + PREDICTED, len(samples))))
            logits.append(predicted(xp.reshape(x, (-1, *self.image_shape_))))
        scores = xp.concat(logits, axis=0)
        both = scores.shape[1] == 2 and not self._several
        return scores[:, 1] - scores[:, 0] if both else scores
