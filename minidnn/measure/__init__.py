"""What commands measure with: model summaries, timings, profiles."""
