"""OpenCV's fast marching fill (Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004)."""

import cv2
import numpy as np

from pipeline.competition.boxes import paste, unknown_mask

RADIUS = 3  # pixels around a pixel that it is computed from


def fill(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A Fill (see batched.py)."""
    return inpaint(masked, boxes, cv2.INPAINT_TELEA)


def inpaint(masked: np.ndarray, boxes: np.ndarray, method: int) -> np.ndarray:
    """Fill by one of OpenCV's methods."""
    holes = unknown_mask(masked, boxes).astype(np.uint8)
    filled = [cv2.inpaint(image, hole, RADIUS, method) for image, hole in zip(masked, holes, strict=True)]
    return paste(np.stack(filled), masked, boxes)
