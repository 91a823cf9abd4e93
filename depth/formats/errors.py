"""Why an image file is not read, whatever it holds: depth or colours."""


class ImageFileError(ValueError):
    """Say that a file is malformed, cut short, or of a kind that is not read."""


class AnimatedImage(ImageFileError):
    """Say that a file announces an animation of several frames."""


class ImageTooLarge(ImageFileError):
    """Say that a header promises more pixels than the caller accepts."""


class UnknownFormat(ImageFileError):
    """Say that a file begins like none that is read."""
