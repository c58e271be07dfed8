"""The mask decoder of Segment Anything, as published and rearranged for inference."""
