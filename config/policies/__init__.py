"""Named policies: which processes are traced for what. Read from headrace's own form, or from Tracee's policy files."""
