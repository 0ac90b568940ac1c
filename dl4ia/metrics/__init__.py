"""What a prediction is worth: pixels and images, boundaries, glands one by one."""
