"""Feature extractors: each returns four feature maps at strides 4, 8, 16 and 32, and says their widths in `channels`."""
