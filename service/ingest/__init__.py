"""Records to committed scores: decode, identify, match, group by person, commit."""
