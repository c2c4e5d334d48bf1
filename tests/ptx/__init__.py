"""An executor of PTX on the CPU, which checks every step: compiled kernels run where no GPU is."""
