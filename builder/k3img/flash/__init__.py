"""From a finished image to a medium: which device, which blocks, whose node."""
