"""Statistics of maps over regions, and the similarity of images."""
