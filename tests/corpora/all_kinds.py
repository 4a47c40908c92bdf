"""Every kind of credential that the corpora can make."""

from tests.corpora.carriers import CARRIERS
from tests.corpora.classes import CLASSES
from tests.corpora.columns import COLUMNS
from tests.corpora.dumps import DUMPS
from tests.corpora.issued import ISSUED
from tests.corpora.key_material import KEY_MATERIAL
from tests.corpora.kinds import Kind
from tests.corpora.named import NAMED

__all__ = ["ALL_KINDS"]

ALL_KINDS: tuple[Kind, ...] = (
    *ISSUED,
    *KEY_MATERIAL,
    *NAMED,
    *CARRIERS,
    *CLASSES,
    *COLUMNS,
    *DUMPS,
)
