"""How good a trained network is: metrics, calibration, pictures, one page."""
