"""Numbers with their errors, and the pages that show them: metrics, comparisons, figures, examples."""
