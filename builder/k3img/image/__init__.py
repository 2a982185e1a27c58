"""Reading a finished image at rest, without root: GPT, erofs, UKI."""
