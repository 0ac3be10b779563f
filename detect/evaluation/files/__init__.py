"""Files of detections: our JSON, COCO's results, VOC's comp4, CSV."""
