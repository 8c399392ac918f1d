"""Decoding with the program ffmpeg, which reads formats that libsndfile does not."""
