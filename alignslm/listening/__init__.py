"""Human ratings: a blinded study of the same continuations, served to raters, exported and analyzed."""
