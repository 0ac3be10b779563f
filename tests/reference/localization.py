"""A slow oracle for ImageNet's localization errors, image by image, in plain Python.

Russakovsky et al. 2015, section 4.2: with guesses (c_i, b_i), i = 1 … 5, the image's class C and
the boxes B_k of its objects of that class, the error is min_i min_k max(d(c_i, C), f(b_i, B_k)),
where d is 0 for the same class, f is 0 for IoU of 0.5 or more, and both are 1 otherwise.
"""

from tests.reference.boxes import area, iou


def class_of_image(objects):
    """The class of the largest of the objects `(class, box)`, the first of equally large ones."""
    best = None
    for label, box in objects:
        if best is None or area(box) > area(best[1]):
            best = (label, box)
    return best[0]


def judge(guesses, objects, iou_threshold):
    """Judge one image with objects.

    `guesses`: `(class, box)` by falling score. `objects`: `(class, box)`.
    Returns the class and a dict of the errors (0 or 1) and the IoU of the first guess.
    """
    label = class_of_image(objects)
    boxes = [box for its_label, box in objects if its_label == label]

    def localization_error(some_guesses):
        errors = [1]
        for guess, box in some_guesses:
            for object_box in boxes:
                d = 0 if guess == label else 1
                f = 0 if iou(box, object_box) >= iou_threshold else 1
                errors.append(max(d, f))
        return min(errors)

    def classification_error(some_guesses):
        return 0 if label in [guess for guess, _ in some_guesses] else 1

    first_iou = max(iou(guesses[0][1], box) for box in boxes) if guesses else 0.0
    return label, {
        "top1_localization_error": localization_error(guesses[:1]),
        "top5_localization_error": localization_error(guesses[:5]),
        "top1_classification_error": classification_error(guesses[:1]),
        "top5_classification_error": classification_error(guesses[:5]),
        "mean_iou": first_iou,
    }


def means(verdicts):
    """The mean of each number over the images, and their count; None without images."""
    names = (
        "top1_localization_error",
        "top5_localization_error",
        "top1_classification_error",
        "top5_classification_error",
        "mean_iou",
    )
    result = {}
    for name in names:
        values = [verdict[name] for verdict in verdicts]
        result[name] = sum(values) / len(values) if values else None
    return {**result, "num_images": len(verdicts)}


def evaluate(images, num_classes, iou_threshold):
    """The numbers of all images and of each class.

    `images`: `(guesses, objects)` of each image.
    """
    by_class = [[] for _ in range(num_classes)]
    verdicts = []
    for guesses, objects in images:
        if not objects:
            continue
        label, verdict = judge(guesses, objects, iou_threshold)
        verdicts.append(verdict)
        by_class[label].append(verdict)
    return means(verdicts), [means(rows) for rows in by_class]
