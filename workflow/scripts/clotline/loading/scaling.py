"""What a network's input is scaled by; apart, for whoever does not need torch, slow to import."""

#: Mean and standard deviation of ImageNet images, averaged over the channels (torchvision's
#: values), for pixels in 0 to 1.
MEAN, STD = 0.449, 0.226
