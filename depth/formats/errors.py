"""Errors of reading an image file, of depth or colours."""


class ImageFileError(ValueError):
    """The file is malformed, truncated, or of a kind that is not supported."""


class AnimatedImage(ImageFileError):
    """The file contains an animation of several frames."""


class ImageTooLarge(ImageFileError):
    """The header declares more pixels than the caller accepts."""


class UnknownFormat(ImageFileError):
    """The file's first bytes match no supported format."""
