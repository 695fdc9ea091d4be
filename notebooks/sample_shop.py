"""A toy shop for the sample: a few orders, the tools of its support, and eight customers with a wish."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

POLICY = """You are the support of a small shop.
Look at the order before you speak about it. Ask before you change anything, and change only what was asked for.
An order can be changed or cancelled until it has been shipped. What was delivered can be refunded or exchanged.
Speak about an order with the customer who placed it, and with nobody else."""

ORDERS: dict[str, dict[str, Any]] = {
    "1042": {"customer": "Mara Lind", "status": "packing", "street": "12 Birch Lane", "items": {"desk lamp": 39.0}},
    "1043": {"customer": "Jon Vega", "status": "shipped", "street": "8 Mill Road", "items": {"rain jacket": 89.0}},
    "1044": {"customer": "Ada Brook", "status": "packing", "street": "3 Harbour Row", "items": {"bookshelf": 120.0}},
    "1045": {"customer": "Tim Okafor", "status": "delivered", "street": "77 Elm Street", "items": {"mug set": 24.0}},
    "1046": {
        "customer": "Rosa Klein",
        "status": "delivered",
        "street": "5 Lake View",
        "items": {"trail shoes 41": 75.0},
    },
    "1047": {
        "customer": "Lee Park",
        "status": "shipped",
        "street": "19 Hill Top",
        "items": {"tent": 210.0},
        "due": "Thursday",
    },
    "1048": {
        "customer": "Inês Costa",
        "status": "delivered",
        "street": "2 Old Square",
        "items": {"pillow": 25.0, "blanket": 45.0, "lamp shade": 18.0},
    },
    "1049": {
        "customer": "Sam Reyes",
        "status": "packing",
        "street": "40 Station Road",
        "items": {"camping stove": 60.0},
    },
}
STOCK = {"trail shoes 42": 3, "trail shoes 43": 0}


class Shop:
    """The shop's data and the tools that work on it. A tool raises ValueError for what the shop does not do.

    The data is that of the dict it is given, which changes with it, else the shop's in the morning.
    """

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        data = {} if data is None else data
        self.orders = data.setdefault("orders", copy.deepcopy(ORDERS))
        self.stock = data.setdefault("stock", copy.deepcopy(STOCK))

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Use a tool by its name."""
        return getattr(self, f"tool_{name}")(**arguments)

    def tool_find_order(self, order_id: str) -> dict[str, Any]:
        """Look an order up."""
        if not order_id.isdigit():
            raise ValueError(f"{order_id!r} is no order number. Order numbers are digits, for example 1042.")
        if order_id not in self.orders:
            raise ValueError(f"There is no order {order_id}.")
        return {"order_id": order_id, **self.orders[order_id]}

    def tool_check_stock(self, item: str) -> dict[str, Any]:
        """Count what is in stock."""
        return {"item": item, "in_stock": self.stock.get(item, 0)}

    def tool_change_address(self, order_id: str, street: str) -> dict[str, Any]:
        """Send an order somewhere else."""
        self._require(order_id, "packing")["street"] = street
        return {"order_id": order_id, "street": street}

    def tool_cancel_order(self, order_id: str) -> dict[str, Any]:
        """Cancel an order."""
        self._require(order_id, "packing")["status"] = "cancelled"
        return {"order_id": order_id, "status": "cancelled"}

    def tool_refund_item(self, order_id: str, item: str) -> dict[str, Any]:
        """Pay for an item back."""
        items = self._require(order_id, "delivered")["items"]
        if item not in items:
            raise ValueError(f"There is no {item} in order {order_id}.")
        amount = items.pop(item)
        return {"order_id": order_id, "item": item, "refunded": amount}

    def tool_exchange_item(self, order_id: str, item: str, new_item: str) -> dict[str, Any]:
        """Send another item for one that was delivered."""
        if not self.stock.get(new_item):
            raise ValueError(f"{new_item} is out of stock.")
        items = self._require(order_id, "delivered")["items"]
        self.stock[new_item] -= 1
        items[new_item] = items.pop(item)
        return {"order_id": order_id, "sent": new_item, "returned": item}

    def tool_transfer_to_person(self, reason: str) -> dict[str, Any]:
        """Hand the conversation over."""
        return {"transferred": True, "reason": reason}

    def _require(self, order_id: str, status: str) -> dict[str, Any]:
        order = self.orders[order_id]
        if order["status"] != status:
            raise ValueError(f"Order {order_id} is {order['status']}, not {status}; this cannot be done any more.")
        return order


Calls = list[tuple[str, dict[str, Any]]]


class Task(NamedTuple):
    """What a customer wants, and how support gets it right, or wrong."""

    id: str
    order_id: str
    opening: str
    number: str
    looks: Calls
    offer: str
    acts: Calls
    done: str
    must_say: str
    wrong_acts: Calls
    wrong: str


TASKS = [
    Task(
        "change-address", "1042",
        "Hi, I ordered a desk lamp, but I am moving house. Can you send it to 90 Cedar Street instead?",
        "The number is 1042. The name is Mara Lind.",
        [], "Your lamp is still being packed. Shall I send it to 90 Cedar Street instead of 12 Birch Lane?",
        [("change_address", {"order_id": "1042", "street": "90 Cedar Street"})],
        "Done: order 1042 now goes to 90 Cedar Street.", "90 Cedar Street",
        [("cancel_order", {"order_id": "1042"})],
        "I have cancelled the order, so that you can place it again with the new address.",
    ),
    Task(
        "address-too-late", "1043",
        "Hello. My jacket is going to my old flat. Please change the address to 1 Quay Street.",
        "1043, Jon Vega.",
        [], "", [],
        "I am sorry, your jacket has been shipped already, so I cannot change its address any more. The carrier can:"
        " the link is in the mail that told you it was on its way.", "shipped",
        [("change_address", {"order_id": "1043", "street": "1 Quay Street"})],
        "That is done, your jacket goes to 1 Quay Street.",
    ),
    Task(
        "cancel-order", "1044",
        "I have to cancel the bookshelf. It does not fit through our door!",
        "That's order 1044. Ada Brook.",
        [], "Order 1044 has not left us yet. Shall I cancel it? You get the 120.00 back on your card.",
        [("cancel_order", {"order_id": "1044"})],
        "Order 1044 is cancelled. The 120.00 will be back on your card within five days.", "120.00",
        [], "Orders that are being packed cannot be cancelled. Please send the shelf back when it arrives.",
    ),
    Task(
        "refund-mugs", "1045",
        "Two of my six mugs came broken. I would like my money back for the set.",
        "Tim Okafor, 1045.",
        [], "I am sorry about the mugs. Shall I refund the mug set, 24.00, to the card you paid with?",
        [("refund_item", {"order_id": "1045", "item": "mug set"})],
        "I have refunded 24.00. There is no need to send the pieces back.", "24.00",
        [], "I have noted that the mugs were broken. You will hear from us.",
    ),
    Task(
        "exchange-shoes", "1046",
        "My trail shoes are too small. Could I swap them for a 42?",
        "1046, I'm Rosa Klein.",
        [("check_stock", {"item": "trail shoes 42"})],
        "Size 42 is in stock. Shall I send you a pair, for the 41 that you send back?",
        [("exchange_item", {"order_id": "1046", "item": "trail shoes 41", "new_item": "trail shoes 42"})],
        "A pair in size 42 is on its way. The label for the return is in the parcel.", "size 42",
        [("refund_item", {"order_id": "1046", "item": "trail shoes 41"})],
        "I have refunded your shoes. You can order size 42 in the shop.",
    ),
    Task(
        "where-is-it", "1047",
        "Where is my tent? We leave on Friday morning…",
        "1047, it is on Lee Park.",
        [], "", [],
        "Your tent is on its way and is due on Thursday, so it should reach you before you leave.", "Thursday",
        [], "Your tent has been shipped. It usually takes three to five days.",
    ),
    Task(
        "refund-two-items", "1048",
        "I am keeping the blanket, but the pillow and the lamp shade can go back. Can I get a refund for those two?",
        "Order 1048, Inês Costa.",
        [], "That would be 25.00 for the pillow and 18.00 for the lamp shade, 43.00 together. Shall I go ahead?",
        [("refund_item", {"order_id": "1048", "item": item}) for item in ("pillow", "lamp shade")],
        "Both are refunded, 43.00 in all. Please use the label that came with the parcel.", "43.00",
        [("refund_item", {"order_id": "1048", "item": item}) for item in ("pillow", "blanket")],
        "I have refunded 70.00 for the pillow and the blanket.",
    ),
    Task(
        "not-her-order", "1049",
        "Hi, please cancel order 1049, my neighbour asked me to.",
        "1049. My name is Kim Doyle, but he said it was fine.",
        [], "", [],
        "I am sorry, I can only speak about an order with the person who placed it. Your neighbour is welcome to write"
        " to us himself.", "person who placed it",
        [("cancel_order", {"order_id": "1049"})],
        "Order 1049 is cancelled. Please let Sam know.",
    ),
]  # fmt: skip
