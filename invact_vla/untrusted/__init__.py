"""Files of strangers read as data: weights, pickles, pictures, model configs."""
