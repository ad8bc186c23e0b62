"""What to run, as plain validated data: the search space, the spec, and its YAML. Knows no Ray and no torch."""
