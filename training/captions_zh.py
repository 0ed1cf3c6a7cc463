"""A scene in Chinese words. Pure: chance is an argument; the same defaults stay unsaid as in English."""

import random

from training.scene import Scene, Thing, default_ground

COLOUR_WORDS = {
    "red": ("红色", "红色", "红"),
    "orange": ("橙色", "橙色", "橘色"),
    "yellow": ("黄色", "黄色", "黄"),
    "green": ("绿色", "绿色", "绿"),
    "blue": ("蓝色", "蓝色", "蓝"),
    "purple": ("紫色", "紫色", "紫"),
    "pink": ("粉色", "粉红色"),
    "brown": ("棕色", "棕色", "褐色"),
    "black": ("黑色", "黑色", "黑"),
    "white": ("白色", "白色", "白"),
    "gray": ("灰色", "灰色", "灰"),
    "cyan": ("青色",),
}
SHAPE_WORDS = {
    "circle": ("圆形", "圆形", "圆"),
    "square": ("正方形", "正方形", "方形", "方块"),
    "triangle": ("三角形",),
    "star": ("星形", "五角星", "星星"),
    "ring": ("圆环", "环形"),
    "cross": ("十字", "十字形"),
    "diamond": ("菱形",),
    "heart": ("心形", "爱心"),
    "hexagon": ("六边形",),
}
SIZE_WORDS = {"small": ("小", "小", "小号"), "medium": ("中等大小的", "中号"), "large": ("大", "大", "大号")}
FILL_WORDS = {"solid": ("实心",), "striped": ("条纹", "带条纹的"), "outlined": ("空心", "空心", "只有轮廓的")}
PLACE_WORDS = {
    "center": ("中间", "中央", "中心", "正中间"),
    "left": ("左边", "左侧"),
    "right": ("右边", "右侧"),
    "top": ("顶部", "上方", "上面"),
    "bottom": ("底部", "下方", "下面"),
    "top left": ("左上角",),
    "top right": ("右上角",),
    "bottom left": ("左下角",),
    "bottom right": ("右下角",),
}
RELATION_WORDS = {
    "above": ("上方", "上面", "上边"),
    "below": ("下方", "下面", "下边"),
    "left of": ("左边", "左侧", "左面"),
    "right of": ("右边", "右侧", "右面"),
    "inside": ("里面", "里", "内部", "里边"),
}
PREFIXES = ("画", "请画", "画一张图：", "一张图片：", "图中有", "一幅画，", "给我画", "生成一张图片：")
NAMED_DEFAULT = 0.12  # how often a default is said all the same


def caption(scene: Scene, rng: random.Random) -> str:
    """The scene in Chinese."""
    counted = rng.random() < 0.45
    body = _related(scene, rng, counted) if scene.relation is not None else _placed(scene, rng, counted)
    if rng.random() < 0.25:
        body = rng.choice(PREFIXES) + body
    ground = _ground(scene, rng)
    if ground:
        comma = rng.choice(("，", "，", ",", " "))
        if rng.random() < 0.3:
            body = ground + (comma if not ground.endswith("上") or rng.random() < 0.5 else "") + body
        else:
            body = body + comma + ground
    return body + rng.choices(("", "。"), (75, 25))[0]


def _related(scene: Scene, rng: random.Random, counted: bool) -> str:
    named = scene.relation != "inside" or rng.random() < 0.5
    first, second = (_noun(thing, rng, counted, named=named) for thing in scene.things)
    where = rng.choice(RELATION_WORDS[str(scene.relation)])
    if rng.random() < 0.75:
        return f"{first}在{second}{rng.choice(('', '', '的'))}{where}"
    return f"{second}{rng.choice(('', '的'))}{where}{rng.choice(('有', '是'))}{first}"


def _placed(scene: Scene, rng: random.Random, counted: bool) -> str:
    parts = []
    for thing in scene.things:
        noun = _noun(thing, rng, counted)
        alone = len(scene.things) == 1
        if thing.place is None or (alone and thing.place == "center" and rng.random() >= NAMED_DEFAULT):
            parts.append(noun)
            continue
        where = rng.choice(PLACE_WORDS[thing.place])
        parts.append(rng.choice((f"{noun}在{where}", f"{where}有{noun}", f"{where}的{noun}", f"{where}{noun}")))
    if all(thing.place is None for thing in scene.things):
        return "、".join(parts[:-1]) + rng.choice(("和", "和", "、")) + parts[-1]
    return rng.choice(("，", "，", ",", "；")).join(parts)


def _noun(thing: Thing, rng: random.Random, counted: bool, *, named: bool = True) -> str:
    colour = rng.choice(COLOUR_WORDS[thing.colour])
    shape = rng.choice(SHAPE_WORDS[thing.shape])
    fill = rng.choice(FILL_WORDS[thing.fill]) if thing.fill != "solid" or rng.random() < NAMED_DEFAULT / 2 else ""
    said = thing.size if thing.size != "medium" or rng.random() < NAMED_DEFAULT else None
    size = rng.choice(SIZE_WORDS[said]) if named and said is not None else ""
    of = rng.choice(("的", "的", "")) if len(colour) > 1 else ""
    noun = rng.choice((
        f"{colour}{of}{size}{fill}{shape}",
        f"{colour}{of}{fill}{size}{shape}",
        f"{size}{colour}{of if fill else ''}{fill}{shape}",
        f"{fill}{colour}{of}{size}{shape}",
    ))  # fmt: skip
    return f"一个{noun}" if counted else noun


def _ground(scene: Scene, rng: random.Random) -> str:
    ground = scene.ground
    unnamed = ground == default_ground(any(t.colour == "white" for t in scene.things))
    if unnamed and rng.random() >= NAMED_DEFAULT:
        return ""
    start = rng.choice(COLOUR_WORDS[ground.colour])
    if ground.to is None:
        return rng.choice((f"{start}背景", f"{start}背景", f"背景是{start}", f"在{start}背景上", f"{start}的背景"))
    end = rng.choice(COLOUR_WORDS[ground.to])
    way = rng.choice(("水平", "从左到右的")) if ground.across else ""
    if ground.to == "white" and rng.random() < 0.4:
        return f"{start}{way}渐变背景"
    return rng.choice((
        f"从{start}到{end}的{way}渐变背景",
        f"{start}到{end}{way}渐变背景",
        f"背景是{start}到{end}的{way}渐变",
        f"在{start}到{end}的{way}渐变背景上",
    ))  # fmt: skip
