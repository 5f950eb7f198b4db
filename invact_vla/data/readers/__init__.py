"""LIBERO HDF5, LeRobot and RLDS: a reader per format behind `dataset.RobotDataset`."""
