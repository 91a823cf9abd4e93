"""Which test proves that a format of depth is read, or refused by name; the documentation shows it."""

_FORMATS = "tests/depth/test_formats.py"
_CASES = f"{_FORMATS}::test_files_of_others_hold_the_room"
_WRITTEN = f"{_FORMATS}::test_what_was_written_is_read"
_UNREAD = f"{_FORMATS}::test_formats_that_are_not_read_are_named_with_what_to_do"

PROOFS = {
    "png": "tests/depth/test_decode.py::test_sixteen_bit_png_is_millimetres_and_keeps_all_sixteen_bits",
    "jpeg": "tests/depth/test_grey.py::test_jpeg_is_what_pillow_decodes",
    "tiff": "tests/depth/test_exact.py::test_encode_decode_compare",
    "npy": _WRITTEN,
    "npz": _WRITTEN,
    "exr": _WRITTEN,
    "pfm": _WRITTEN,
    "pgm": _WRITTEN,
    "compressedDepth": _CASES,
    "colmap": _WRITTEN,
    "raw": _WRITTEN,
    "hdf5": _UNREAD,
    "mat": _UNREAD,
    "lzfse": _UNREAD,
    "rvl": _UNREAD,
}
