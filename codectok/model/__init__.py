"""The neural codec: ConvNeXt encoder, quantizers, HiFi-GAN decoder. Reads and writes no files."""
