"""The later stages of a cascade that refines joints (Toshev & Szegedy 2014, DeepPose, section 3.2).

Each stage looks at a square around each joint that the stage before has found, and says how far the
joint is from its middle.
"""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detect.backbones import Backbone
from detect.ops import divisor_over_processes, from_center_size
from detect.ops.regions import warp_regions
from detect.structures import Batch

# Least side of a square, as a share of the input's: a pose that has shrunk to a point sees
# something still.
MIN_SIDE = 0.05


class RefinementStage(nn.Module):
    """One stage: a network of its own that looks at a square around each joint.

    The square's side is `context` times the distance of two joints across the torso of the pose
    (σ · diam in the paper). The network gives the displacements of all J joints in units of the
    square; that of the joint in its middle counts. A stage whose `measure_errors` has not been
    called is left out when joints are refined.

    Deviation: the squares are cut out of the input, not of the original image, so that a larger
    input is what shows a joint in more detail.

    Args:
        backbone: a copy of it, as it is, is the stage's network.
        num_joints: J.
        diameter_joints: numbers of the two joints across the torso.
        context: σ; 1 in the paper for FLIC, 2 for LSP.

    Attributes:
        error_mean: `[J, 2]`; what the stage before is wrong by on average, in units of the square.
        error_std: `[J, 2]`; by how much that differs. Both are measured on the training images.
        is_measured: whether they have been.
    """

    error_mean: Tensor
    error_std: Tensor
    is_measured: Tensor

    def __init__(
        self, backbone: Backbone, num_joints: int, diameter_joints: tuple[int, int], context: float
    ) -> None:
        super().__init__()
        self.num_joints = num_joints
        self.diameter_joints = diameter_joints
        self.context = context
        self.backbone = copy.deepcopy(backbone)
        self.regressor = nn.Linear(backbone.feature_dim, 2 * num_joints)
        # an untrained stage moves nothing
        nn.init.normal_(self.regressor.weight, std=0.001)
        nn.init.zeros_(self.regressor.bias)
        self.register_buffer("error_mean", torch.zeros(num_joints, 2))
        self.register_buffer("error_std", torch.zeros(num_joints, 2))
        self.register_buffer("is_measured", torch.tensor(False))

    def refine(
        self, images: Float[Tensor, "B 3 H W"], joints: Float[Tensor, "B J 2"]
    ) -> Float[Tensor, "B J 2"]:
        """Joints that lie nearer to the true ones, in pixels of the input.

        Args:
            images: in 0…1.
            joints: of one person in each image, as the stage before has found them.
        """
        if not self.is_measured:
            return joints
        sides = self.sides(joints, images.shape[2:])
        displacements: Tensor = self(images, joints, sides)
        return joints + sides[:, None, None] * displacements

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        joints: Float[Tensor, "B J 2"],
        sides: Float[Tensor, "B"],
    ) -> Float[Tensor, "B J 2"]:
        """The displacement of each joint in units of the square around it.

        Args:
            images: in 0…1.
            joints: the middles of the squares.
            sides: of the squares of each image, in pixels.
        """
        size = sides[:, None, None].expand_as(joints)
        squares = from_center_size(torch.cat((joints, size), dim=-1))  # [B, J, 4]
        image_index = torch.arange(len(images), device=images.device).repeat_interleave(
            self.num_joints
        )
        crops = warp_regions(
            images,
            squares.flatten(0, 1),
            image_index,
            self.backbone.image_size,
            context=0,
            fill=self.backbone.mean,
        )
        features = self.backbone.head_features(self.backbone(crops))
        outputs = self.regressor(features).float()
        displacements = outputs.unflatten(0, joints.shape[:2]).unflatten(-1, joints.shape[1:])
        own: Tensor = displacements.diagonal(dim1=1, dim2=2)  # [B, 2, J]: joint j of square j
        return own.transpose(1, 2)

    def sides(
        self, joints: Float[Tensor, "B J 2"], input_size: Iterable[int]
    ) -> Float[Tensor, "B"]:
        """Of the squares of each image, in pixels of the input."""
        first, second = self.diameter_joints
        diameters: Tensor = torch.linalg.vector_norm(joints[:, first] - joints[:, second], dim=-1)
        return (self.context * diameters).clamp(min=MIN_SIDE * min(input_size))

    def loss(self, batch: Batch, labeled: Float[Tensor, "B J 3"]) -> Float[Tensor, ""]:
        """Half the squared error of the displacement, over the joints that are labeled.

        The squares lie around simulated predictions: the true joints, displaced at random as the
        stage before errs, each square as large as the true pose says. Images in which a joint
        across the torso is not labeled teach nothing.

        Args:
            batch: the images.
            labeled: `[B, J, 3]`, x, y and visibility of the joints of each image's person.
        """
        images, truth = batch.unit_images(), labeled[..., :2]
        is_labeled = self.is_learned_from(labeled)
        sides = self.sides(truth, images.shape[2:])
        errors = self.error_mean + self.error_std * torch.randn_like(truth)
        start = truth + sides[:, None, None] * errors
        wrong = self(images, start, sides) + errors  # errors is start − truth in squares
        losses = torch.where(is_labeled, wrong.square().sum(dim=-1) / 2, 0)
        return losses.sum() / divisor_over_processes(is_labeled.sum())

    def is_learned_from(self, labeled: Float[Tensor, "B J 3"]) -> Bool[Tensor, "B J"]:
        """Which joints are labeled, in images with a torso."""
        is_labeled = labeled[..., 2] > 0
        has_torso = is_labeled[:, list(self.diameter_joints)].all(dim=1)
        return is_labeled & has_torso[:, None]

    def measure_errors(self, pairs: Iterable[tuple[Tensor, Tensor]], side: int) -> None:
        """Fit the normal distribution of each joint's error, from which training draws.

        Args:
            pairs: of a batch each: the joints as the stage before finds them, `[B, J, 2]`, and as
                they are labeled, `[B, J, 3]`.
            side: of the input in pixels.
        """
        shape = (self.num_joints, 2)
        count = self.error_mean.new_zeros(self.num_joints, 1, dtype=torch.float64)
        total, squares = count.new_zeros(shape), count.new_zeros(shape)
        for found, labeled in pairs:
            weight = self.is_learned_from(labeled)[..., None].double()
            truth = labeled[..., :2]
            unit = self.sides(truth, (side, side))[:, None, None]
            errors = weight * (found - truth).double() / unit
            count += weight.sum(dim=0)
            total += errors.sum(dim=0)
            squares += errors.square().sum(dim=0)
        mean = total / count.clamp(min=1)
        variance = squares / count.clamp(min=1) - mean.square()
        self.error_mean.copy_(mean)
        self.error_std.copy_(variance.clamp(min=0).sqrt())
        self.is_measured.fill_(True)
