"""What leaves the library: pictures to look at, point clouds, viewers."""
