"""Who is calling: identities, admin keys, and the one place that turns credentials into callers."""
