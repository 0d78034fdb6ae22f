"""From a picture and boxes to masks in the picture's own pixels."""
