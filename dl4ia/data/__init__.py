"""Reading images and labels, drawing the embedded glands, splitting. Knows nothing of models."""
