"""The neural codec: ConvNeXt encoder, quantizers, HiFi-GAN decoder. Knows no files."""
