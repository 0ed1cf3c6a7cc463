"""GenServe as services of one host: installed, upgraded, removed."""
