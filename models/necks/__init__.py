"""Necks: four feature maps at strides 4 to 32 in, one map at stride 4 out, its width in `channels`.

What a neck joins to that map are the outputs of its four modules `smooths`, which a student may compare with its teacher's.
"""
