"""Necks: four feature maps at strides 4 to 32 in, one map at stride 4 out, its width in `channels`."""
