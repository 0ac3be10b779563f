"""A backbone with a last layer: the classification network that detectors start from."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones.base import Backbone


class Classifier(nn.Module):
    """Classifies images of any size: trunk, head (see `Backbone.head_features`), linear layer.

    Attributes:
        backbone: whose head is in use.
        classifier: the last layer, `[B, feature_dim]` → `[B, C]`.
        auxiliaries: classifiers on intermediate maps that help the training, if the network has
            any (GoogLeNet).
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.classifier = nn.Linear(backbone.feature_dim, num_classes)
        self.auxiliaries = nn.ModuleList(
            auxiliary.build(num_classes) for auxiliary in backbone.auxiliaries
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Logits of images in 0…1."""
        return self.classify(self.backbone(images))

    def classify(self, features: Float[Tensor, "B F h w"]) -> Float[Tensor, "B C"]:
        """Logits from the trunk's output."""
        logits: Tensor = self.classifier(self.backbone.head_features(features))
        return logits

    def loss(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, "B"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy, and that of the auxiliary classifiers with their weights."""
        features = self.backbone.normalize(images)
        auxiliary_loss = features.new_zeros(())
        branches = {
            auxiliary.after: (auxiliary.weight, branch)
            for auxiliary, branch in zip(self.backbone.auxiliaries, self.auxiliaries, strict=True)
        }
        begin = 0
        for after, (weight, branch) in sorted(branches.items()):
            features = self.backbone.run_layers(features, begin, after + 1)
            begin = after + 1
            auxiliary_loss = auxiliary_loss + weight * functional.cross_entropy(
                branch(features), labels
            )
        features = self.backbone.run_layers(features, begin)
        losses = {"classification": functional.cross_entropy(self.classify(features), labels)}
        return {**losses, "auxiliary": auxiliary_loss} if branches else losses
