"""Where replies in many languages are cut; `|` marks the cuts."""

from __future__ import annotations

import pytest

from xiaozhi_trio.session.segmentation import SentenceSegmenter

TABLE = {
    "Chinese": """
        你好！|我是小智。|今天想聊什么？
        今天北京晴，|最高气温25.5℃，适合出门。
        他说：“我明天来。”|然后就走了。
        “真的吗？”|“当然。”
        价格是¥1,299.00。|要买吗？
        会议在12:30开始，|别迟到。
        版本v2.4.2已经发布。|请更新。
        嗯……|让我想想。|好了！
        第一，打开盒子；|第二，取出设备；|第三，插上电源。
        请看https://a.cn/x?y=1。|谢谢你。
        《红楼梦》是曹雪芹写的。|你读过吗？
        他买了苹果、|梨、香蕉等水果。|都很新鲜。
        （小声说）我知道一个秘密。|你想听吗？
        我用iPhone 15 Pro。|它很好用！
        这个问题其实有一点复杂|但是我可以试着解释一下。
        1. 打开电源。|2. 连接网络。|3. 开始聊天。
    """,
    "English": """
        Hello there!|I am fine.|How are you today?
        Well, of course,|I can help you with that.
        Dr. Smith met Mrs. Jones at 5 p.m. on Main St. in town.|They talked.
        It costs $3.50.|That is cheap.
        The U.S. economy grew by 2.5% in Jan. 2024.|It may slow down.
        J. R. R. Tolkien wrote it.|You will like it.
        "Are you sure?" she asked.|He nodded.
        He said "Stop."|Then he left.
        Go to www.example.com/a.b?c=d.|Then log in.
        Python 3.11.4 is out.|It is faster.
        Wait...|I know.|It was him!
        See No. 5 on p. 12.|It is short.
        Meet me at 10:30 a.m. tomorrow.|Do not be late.
        I like cats,|dogs, etc. and birds.|They are fun.
        He works at Apple Inc.|She does not.
        1. Open the box.|2. Press the button.
        What?!|No way!
        The weather in London will be sunny tomorrow|but it may rain in the evening.
        You should really take an umbrella with you|because it is going to rain.
        I would be happy to do it|and I can start right now.
        My favourite fruits are apples and pears and plums.|What are yours?
        I would like to do it even if it rains all day.|Fine.
        She asked me (twice!) to come.|I did.
    """,
    "Japanese": """
        こんにちは！|私は小智です。|お元気ですか？
        今日は晴れです。|最高気温は25.5度です。
        「はい。」|と言いました。|それから帰りました。
        そうですね…|ちょっと考えます。
        東京は日本の首都で、|人口は約1,400万人です。
        本当ですか？|！信じられません。
    """,
    "Korean": """
        안녕하세요!|저는 샤오즈입니다.|무엇을 도와드릴까요?
        오늘은 맑습니다.|기온은 25.5도입니다.
        네, 알겠습니다.|잠시만 기다려 주세요.
        "정말요?"|그가 물었습니다.|네.
        그렇습니다.|그래서 갔습니다.|끝입니다.
    """,
    "German": """
        Guten Tag!|Ich bin Xiaozhi.|Wie geht es dir?
        Das ist z. B. ein Hund.|Er bellt.
        Das ist z.B. Ein Hund.|Er bellt.
        Er kommt am 3. Mai um 12.30 Uhr.|Dann geht er.
        Der 2. Weltkrieg endete 1945.|Das war im Mai.
        Es kostet ca. 3,50 Euro,|d. h. wenig.|Gut so.
        „Hallo.“|Er ging weg.
        „Bist du da?“ fragte er.|Ja.
        Hunde, Katzen usw. sind Tiere.|Autos nicht.
        Dr. Müller und Prof. Schmidt kommen.|Schön!
        Das kostet 5 Mio. Euro.|Zu viel!
    """,
    "French": """
        Bonjour !|Je suis Xiaozhi.|Comment ça va ?
        M. Dupont et Mme. Durand arrivent.|Ils sont là.
        « C'est vrai ?|» Oui, c'est vrai.
        Par ex. le chat dort.|Le chien, p. ex. un berger, court.
        Il fait 25,5 °C.|C'est agréable.
        Des pommes, des poires,|etc. et du pain.|Tout est frais.
        J'ai vu l'av. Foch.|C'est beau.
    """,
    "Spanish": """
        ¡Hola!|Soy Xiaozhi.|¿Cómo estás?
        El Sr. García y la Sra. López viven en EE. UU.|Son amigos.
        Cuesta 3,50 €.|Es barato.
        Hay frutas, p. ej. manzanas.|¿Quieres una?
        ¿De verdad?|¡Sí!
    """,
    "Italian": """
        Ciao!|Sono Xiaozhi.|Come stai?
        Il sig. Rossi e il dott. Bianchi arrivano.|Sono qui.
        Mele, pere, ecc. sono frutti.|Buoni!
        Fa caldo.|È estate.
    """,
    "Portuguese": """
        Olá!|Eu sou o Xiaozhi.|Como está?
        O Sr. Silva mora na av. Brasil.|É longe.
    """,
    "Dutch": """
        Hallo!|Dit is bijv. een hond.|Hij blaft.
        Appels, peren enz. zijn fruit.|Lekker!
    """,
    "Russian": """
        Привет!|Я Сяочжи.|Как дела?
        Это т. е. собака.|Она лает.
        А. С. Пушкин родился в 1799 г. в Москве.|Он поэт.
        Яблоки, груши и т. д.|Всё свежее.
        Он живёт на ул. Ленина.|Это далеко.
    """,
    "Polish": """
        Cześć!|Jestem Xiaozhi.|Jak się masz?
        To jest np. pies.|On szczeka.
        „Dobrze.”|Poszedł do domu.
        Jabłka, gruszki itd. są dobre.|Lubię je.
    """,
    "Arabic and Hindi": """
        مرحبا بك!|كيف حالك اليوم؟|أنا بخير.
        नमस्ते दोस्त।|आप कैसे हैं?|मैं ठीक हूँ।
    """,
}

ROWS = [
    pytest.param(line.strip(), id=f"{language}: {line.strip()}")
    for language, lines in TABLE.items()
    for line in lines.strip().splitlines()
]


@pytest.mark.parametrize("row", ROWS)
def test_boundaries(row: str) -> None:
    expected = [part.strip() for part in row.split("|")]
    spaced = not any("\u3040" <= char <= "\u9fff" for char in row)
    reply = row.replace("|", " " if spaced else "")
    for pieces in ([reply], list(reply)):
        segmenter = SentenceSegmenter()
        sentences = [sentence for piece in pieces for sentence in segmenter.feed(piece)]
        assert [*sentences, *segmenter.flush()] == expected
