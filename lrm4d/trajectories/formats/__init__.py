"""Files of camera paths, a module a format: read(path, part) -> CameraPath and write(path, cameras, times, rate)."""
