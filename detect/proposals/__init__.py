"""Class-agnostic proposals: selective search, other sources, files, recall. Floor 2."""

from detect.proposals.base import PROPOSALS, ProposalSource
from detect.proposals.collection import Proposals, read_proposals, write_proposals
from detect.proposals.compiled import compiled_kernels
from detect.proposals.computing import ComputedProposals, ImageFile, compute_proposals
from detect.proposals.recall import IOU_THRESHOLDS, Coverage, measure_coverage
from detect.proposals.selective_search import MODES, SelectiveSearch, Strategies
from detect.proposals.sources import DenseWindows, GivenBoxes, JitteredTruth, RandomBoxes
