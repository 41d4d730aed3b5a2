"""An organization's events as a file that proves itself: no service is needed to see that nothing in it was changed."""
