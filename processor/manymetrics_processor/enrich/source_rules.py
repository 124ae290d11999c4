"""Lists referring sites, by kind, and click ids. Facts from public pages, cited per group; no copied list.

In a row, a word with a dot is a host, with its subdomains; ``=host`` is that host with only its ``www.`` and ``m.``; a
word without a dot is another name used in ``utm_source``. The key is the value for the column ``source``. Read
2026-11-30.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["search", "social", "video", "shopping", "mail", "AI"]


class Site(NamedTuple):
    """A known site. ``name``: value for the column ``source``."""

    name: str
    kind: Kind


class Click(NamedTuple):
    """A click id. ``is_sure``: takes precedence over the referrer, as those of ads do; otherwise the referrer does."""

    source: str
    medium: str
    is_sure: bool = True
    shared_with: str = ""
    """A site whose ads use the same parameter name; applies if it is the referrer."""


# The kinds, and the best-known sites of each: "default channel group source categories", a PDF linked from
# https://support.google.com/analytics/answer/9756891. Hosts: from the sites themselves.
SITES: dict[Kind, dict[str, str]] = {
    # Search engines also from https://gs.statcounter.com/search-engine-market-share and
    # https://en.wikipedia.org/wiki/List_of_search_engines.
    "search": {
        "google": "google-search",
        "bing": "bing.com",
        "yahoo": "",
        "yandex": "ya.ru",
        "duckduckgo": "duckduckgo.com ddg.gg ddg",
        "ecosia": "ecosia.org",
        "qwant": "qwant.com",
        "startpage": "startpage.com ixquick.com",
        "brave": "search.brave.com",
        "kagi": "kagi.com",
        "mojeek": "mojeek.com",
        "swisscows": "swisscows.com",
        "presearch": "presearch.com presearch.org",
        "searx": "searx.be searx.space",
        "baidu": "=baidu.com wap.baidu.com",
        "sogou": "sogou.com",
        "so.com": "so.com 360.cn haosou.com",
        "shenma": "sm.cn",
        "naver": "=naver.com search.naver.com",
        "daum": "=daum.net search.daum.net",
        "seznam": "=seznam.cz search.seznam.cz",
        "coccoc": "coccoc.com",
        "rambler": "nova.rambler.ru =rambler.ru",
        "mail.ru": "go.mail.ru =mail.ru",
        "goo": "search.goo.ne.jp =goo.ne.jp",
        "aol": "search.aol.com search.aol.co.uk =aol.com",
        "ask": "ask.com",
        "lycos": "lycos.com",
        "dogpile": "dogpile.com",
        "webcrawler": "webcrawler.com",
        "info.com": "info.com",
        "avg": "mysearch.avg.com",
        "lilo": "search.lilo.org",
        "t-online": "suche.t-online.de",
        "virgilio": "ricerca.virgilio.it",
        "onet": "szukaj.onet.pl",
        "wp.pl": "szukaj.wp.pl",
    },
    # Mastodon's hosts are the largest servers of https://instances.social; link shorteners are the networks' own.
    "social": {
        "facebook": "facebook.com fb.com fb.me fb.watch facebookcorewwwi.onion fb facebook_ads facebook-ads meta",
        "messenger": "messenger.com m.me",
        "instagram": "instagram.com ig.me instagr.am ig insta",
        "threads": "threads.net threads.com",
        "twitter": "twitter.com t.co =x.com x tw",
        "linkedin": "linkedin.com lnkd.in",
        "pinterest": "pin.it",
        "reddit": "reddit.com redd.it redditmedia.com",
        "tiktok": "tiktok.com douyin.com",
        "bluesky": "bsky.app bsky.social bsky",
        "mastodon": (
            "mastodon.social mastodon.online mastodon.world mastodon.cloud mstdn.social mstdn.jp mas.to fosstodon.org"
            " hachyderm.io infosec.exchange techhub.social chaos.social pawoo.net joinmastodon.org"
        ),
        "lemmy": "lemmy.world lemmy.ml",
        "vk": "vk.com vk.ru vkontakte.ru vk.me vkontakte",
        "ok.ru": "ok.ru odnoklassniki.ru odnoklassniki",
        "weibo": "weibo.com weibo.cn t.cn",
        "wechat": "weixin.qq.com wechat.com weixin",
        "qzone": "qzone.qq.com",
        "xiaohongshu": "xiaohongshu.com xhslink.com rednote",
        "zhihu": "zhihu.com",
        "douban": "douban.com",
        "tieba": "tieba.baidu.com",
        "quora": "quora.com",
        "hacker news": "news.ycombinator.com hackernews hn",
        "lobsters": "lobste.rs",
        "slashdot": "slashdot.org",
        "stackoverflow": "stackoverflow.com",
        "stackexchange": "stackexchange.com superuser.com serverfault.com",
        "discord": "discord.com discord.gg discordapp.com",
        "slack": "slack.com",
        "teams": "teams.microsoft.com teams.live.com",
        "whatsapp": "whatsapp.com wa.me",
        "telegram": "telegram.org t.me telegram.me web.telegram.org tg",
        "viber": "viber.com",
        "signal": "signal.me signal.group",
        "snapchat": "snapchat.com snap",
        "tumblr": "tumblr.com t.umblr.com",
        "line": "line.me",
        "kakaotalk": "kakao.com story.kakao.com kakao",
        "naver blog": "blog.naver.com cafe.naver.com",
        "xing": "xing.com",
        "nextdoor": "nextdoor.com",
        "medium": "medium.com",
        "flipboard": "flipboard.com flip.it",
        "disqus": "disqus.com",
        "livejournal": "livejournal.com",
        "mixi": "mixi.jp",
        "hatena": "b.hatena.ne.jp",
        "truth social": "truthsocial.com",
        "gab": "gab.com",
        "meetup": "meetup.com",
        "goodreads": "goodreads.com",
        "yelp": "yelp.com",
        "tripadvisor": "tripadvisor.com",
        "linktree": "linktr.ee",
    },
    "video": {
        "youtube": "youtube.com youtu.be youtube-nocookie.com yt",
        "vimeo": "vimeo.com",
        "twitch": "twitch.tv",
        "dailymotion": "dailymotion.com dai.ly",
        "bilibili": "bilibili.com b23.tv",
        "netflix": "netflix.com",
        "hulu": "hulu.com",
        "disneyplus": "disneyplus.com",
        "crunchyroll": "crunchyroll.com",
        "niconico": "nicovideo.jp nico.ms",
        "iqiyi": "iqiyi.com iq.com",
        "youku": "youku.com",
        "rutube": "rutube.ru",
        "rumble": "rumble.com",
        "odysee": "odysee.com",
        "kick": "kick.com",
        "wistia": "wistia.com",
        "ted": "ted.com",
    },
    # Marketplaces also from https://en.wikipedia.org/wiki/List_of_online_marketplaces.
    "shopping": {
        "google shopping": "shopping.google.com googleshopping google-shopping",
        "amazon": "amzn.to a.co amzn",
        "ebay": "ebay.to",
        "etsy": "etsy.com etsy.me",
        "walmart": "walmart.com walmart.ca",
        "target": "target.com",
        "bestbuy": "bestbuy.com",
        "aliexpress": "aliexpress.com aliexpress.us",
        "alibaba": "alibaba.com",
        "taobao": "taobao.com",
        "tmall": "tmall.com",
        "jd": "jd.com",
        "temu": "temu.com",
        "shein": "shein.com",
        "mercadolibre": "mercadolivre.com.br",
        "shopee": "",
        "lazada": "",
        "rakuten": "rakuten.co.jp rakuten.com",
        "yahoo shopping": "shopping.yahoo.co.jp shopping.yahoo.com",
        "naver shopping": "shopping.naver.com smartstore.naver.com",
        "coupang": "coupang.com",
        "flipkart": "flipkart.com",
        "otto": "otto.de",
        "zalando": "",
        "allegro": "allegro.pl",
        "bol": "bol.com",
        "cdiscount": "cdiscount.com",
        "idealo": "idealo.de idealo.co.uk idealo.fr idealo.it idealo.es",
        "pricerunner": "pricerunner.com pricerunner.se pricerunner.dk",
        "shopping.com": "shopping.com",
        "shopzilla": "shopzilla.com",
        "wildberries": "wildberries.ru",
        "ozon": "ozon.ru",
        "yandex market": "market.yandex.ru",
        "shopify": "shopify.com shop.app",
        "wish": "wish.com",
    },
    # Webmail: the largest by https://www.litmus.com/email-client-market-share, and their own pages.
    "mail": {
        "mail.google.com": "mail.google.com gmail.com gmail",
        "outlook.live.com": "outlook.live.com outlook.com mail.live.com hotmail.com outlook hotmail",
        "outlook.office.com": "outlook.office.com outlook.office365.com outlook.cloud.microsoft",
        "mail.yahoo.com": "mail.yahoo.com mail.yahoo.co.jp",
        "mail.aol.com": "mail.aol.com",
        "icloud.com": "=icloud.com",
        "mail.proton.me": "mail.proton.me mail.protonmail.com",
        "fastmail.com": "fastmail.com",
        "mail.zoho.com": "mail.zoho.com mail.zoho.eu mail.zoho.in",
        "hey.com": "app.hey.com",
        "mail.superhuman.com": "mail.superhuman.com",
        "e.mail.ru": "e.mail.ru light.mail.ru touch.mail.ru",
        "mail.yandex.ru": "mail.yandex.ru mail.yandex.com",
        "mail.rambler.ru": "mail.rambler.ru",
        "gmx": "gmx.net gmx.de gmx.com gmx.at gmx.ch",
        "web.de": "web.de",
        "email.t-online.de": "email.t-online.de",
        "mail.orange.fr": "mail.orange.fr",
        "mail.libero.it": "mail.libero.it mail1.libero.it",
        "email.seznam.cz": "email.seznam.cz",
        "poczta.onet.pl": "poczta.onet.pl",
        "poczta.wp.pl": "poczta.wp.pl",
        "mail.naver.com": "mail.naver.com",
        "mail.daum.net": "mail.daum.net",
        "mail.qq.com": "mail.qq.com",
        "mail.163.com": "mail.163.com mail.126.com",
        "mailchimp": "list-manage.com campaign-archive.com",
    },
    # Assistants' own pages; for those in use: https://en.wikipedia.org/wiki/List_of_chatbots. That ChatGPT adds
    # utm_source=chatgpt.com: https://www.metrivo.co/blog/chatgpt-referral-tracking.
    "AI": {
        "chatgpt.com": "chatgpt.com chat.openai.com openai.com chatgpt openai",
        "perplexity.ai": "perplexity.ai perplexity",
        "claude.ai": "claude.ai claude.com claude anthropic",
        "gemini.google.com": "gemini.google.com bard.google.com gemini",
        "notebooklm.google.com": "notebooklm.google.com notebooklm",
        "copilot.microsoft.com": (
            "copilot.microsoft.com copilot.com edgeservices.bing.com copilot.cloud.microsoft m365.cloud.microsoft"
            " copilot"
        ),
        "chat.mistral.ai": "chat.mistral.ai mistral.ai mistral",
        "deepseek.com": "deepseek.com deepseek",
        "grok.com": "grok.com grok.x.ai x.ai grok",
        "meta.ai": "meta.ai meta-ai",
        "you.com": "you.com",
        "phind.com": "phind.com phind",
        "poe.com": "poe.com",
        "assistant.kagi.com": "assistant.kagi.com",
        "duck.ai": "duck.ai",
        "chat.qwen.ai": "qwen.ai qwen",
        "kimi.com": "kimi.com kimi.ai kimi.moonshot.cn",
        "doubao.com": "doubao.com",
        "yuanbao.tencent.com": "yuanbao.tencent.com",
        "chat.z.ai": "z.ai chatglm.cn",
        "yiyan.baidu.com": "yiyan.baidu.com chat.baidu.com",
        "manus.im": "manus.im",
        "genspark.ai": "genspark.ai",
        "character.ai": "character.ai",
        "pi.ai": "pi.ai",
        "iask.ai": "iask.ai",
        "felo.ai": "felo.ai",
        "andisearch.com": "andisearch.com",
        "consensus.app": "consensus.app",
        "lumo.proton.me": "lumo.proton.me",
        "alice.yandex.ru": "alice.yandex.ru",
        "giga.chat": "giga.chat",
    },
}

# Sites with a domain in many countries; Google's are https://www.google.com/supported_domains. The first group is the
# part before the name; for names in COUNTRY_HOSTS, only these hosts are the site.
COUNTRY_DOMAINS = re.compile(
    r"(?:([a-z0-9.-]+)\.)?"
    r"(google|yahoo|yandex|amazon|ebay|pinterest|mercadolibre|aliexpress|shopee|lazada|zalando|tripadvisor)"
    r"\.(?:com|[a-z]{2}|com?\.[a-z]{2})"
)
COUNTRY_HOSTS = {
    "google": re.compile(r"(?:www|m|images|encrypted|lens|cse|ipv4|ipv6|scholar)?"),
    "yahoo": re.compile(r"(?:www|m)?|(?:[a-z]+\.)*search|[a-z]{2}"),
    "yandex": re.compile(r"(?:www|m|yabs|clck)?"),
}

# Packages of Android apps, from https://play.google.com/store/apps/details?id=..., and the host of each.
ANDROID_APPS = {
    "com.google.android.gm": "mail.google.com",
    "com.google.android.googlequicksearchbox": "www.google.com",
    "com.google.android.youtube": "www.youtube.com",
    "com.google.android.apps.bard": "gemini.google.com",
    "com.google.android.apps.magazines": "news.google.com",
    "com.google.android.apps.maps": "maps.google.com",
    "com.facebook.katana": "www.facebook.com",
    "com.facebook.lite": "www.facebook.com",
    "com.facebook.orca": "www.messenger.com",
    "com.instagram.android": "www.instagram.com",
    "com.instagram.barcelona": "www.threads.com",
    "com.twitter.android": "twitter.com",
    "com.linkedin.android": "www.linkedin.com",
    "com.pinterest": "www.pinterest.com",
    "com.reddit.frontpage": "www.reddit.com",
    "com.zhiliaoapp.musically": "www.tiktok.com",
    "com.ss.android.ugc.trill": "www.tiktok.com",
    "xyz.blueskyweb.app": "bsky.app",
    "org.joinmastodon.android": "joinmastodon.org",
    "com.laurencedawson.reddit_sync": "www.reddit.com",
    "com.whatsapp": "www.whatsapp.com",
    "com.whatsapp.w4b": "www.whatsapp.com",
    "org.telegram.messenger": "telegram.org",
    "com.snapchat.android": "www.snapchat.com",
    "com.discord": "discord.com",
    "com.slack": "slack.com",
    "com.microsoft.teams": "teams.microsoft.com",
    "com.tumblr": "www.tumblr.com",
    "com.quora.android": "www.quora.com",
    "com.vkontakte.android": "vk.com",
    "ru.ok.android": "ok.ru",
    "jp.naver.line.android": "line.me",
    "com.kakao.talk": "kakao.com",
    "com.tencent.mm": "weixin.qq.com",
    "com.microsoft.office.outlook": "outlook.live.com",
    "com.yahoo.mobile.client.android.mail": "mail.yahoo.com",
    "ch.protonmail.android": "mail.proton.me",
    "com.microsoft.bing": "www.bing.com",
    "com.duckduckgo.mobile.android": "duckduckgo.com",
    "com.openai.chatgpt": "chatgpt.com",
    "com.anthropic.claude": "claude.ai",
    "ai.perplexity.app.android": "www.perplexity.ai",
    "com.microsoft.copilot": "copilot.microsoft.com",
    "com.deepseek.chat": "chat.deepseek.com",
    "ai.x.grok": "grok.com",
    "com.amazon.mshop.android.shopping": "www.amazon.com",
    "com.ebay.mobile": "www.ebay.com",
    "com.etsy.android": "www.etsy.com",
    "com.alibaba.aliexpresshd": "www.aliexpress.com",
    "tv.twitch.android.app": "www.twitch.tv",
}

# The first match applies: ads first, Google's before the others. If the company has no public page about a parameter,
# it is from AdGuard's list of tracking parameters, with the remark there on its owner:
# https://github.com/AdguardTeam/AdguardFilters/blob/master/TrackParamFilter/sections/general_url.txt ("AdGuard" below).
CLICKS: dict[str, Click] = {
    # https://support.google.com/google-ads/answer/9744275 (gclid), .../answer/10417364 (gbraid, wbraid)
    "gclid": Click("google", "cpc"),
    "gbraid": Click("google", "cpc"),
    "wbraid": Click("google", "cpc"),
    # https://support.google.com/campaignmanager/answer/9182069 (dclid, gad_source). Google Analytics itself calls an
    # ad of Campaign Manager 360 without UTM `dfa / cpm`, after DoubleClick for Advertisers.
    "dclid": Click("dfa", "cpm"),
    "gad_source": Click("google", "cpc"),
    "msclkid": Click("bing", "cpc"),  # https://help.ads.microsoft.com/apex/index/3/en/60125
    "ttclid": Click("tiktok", "paid_social"),  # https://ads.tiktok.com/help/article/tiktok-click-id
    # https://www.simoahava.com/analytics/common-mistakes-click-identifiers (twclid, li_fat_id, ScCid)
    "twclid": Click("twitter", "paid_social"),
    "li_fat_id": Click("linkedin", "paid_social"),
    "rdt_cid": Click("reddit", "paid_social"),  # https://docs.metarouter.io/docs/reddit-ads
    "ScCid": Click("snapchat", "paid_social"),
    # "promoted traffic": https://help.pinterest.com/en/business/article/pinterest-tag-parameters-and-cookies
    "epik": Click("pinterest", "paid_social"),
    "qclid": Click("quora", "paid_social"),  # https://github.com/PostHog/posthog-js/pull/1872
    # https://yandex.ru/support/direct/en/statistics/url-tags; Yahoo! JAPAN Ads has a parameter of the same name:
    # https://ads-help.yahoo.co.jp/yahooads/ss/articledetail?lan=en&aid=20442
    "yclid": Click("yandex", "cpc", shared_with="yahoo"),
    # Outbrain's and Taboola's: seen in the code of public sites; the companies don't document them publicly.
    "obclid": Click("outbrain", "cpc"),
    "dicbo": Click("outbrain", "cpc"),
    "tblci": Click("taboola", "cpc"),
    # Affiliate networks: AdGuard (irclickid, awc, sscid). CJ's cjevent and Rakuten's ranSiteID: seen in public links.
    "irclickid": Click("impact", "affiliate"),
    "awc": Click("awin", "affiliate"),
    "cjevent": Click("cj", "affiliate"),
    "sscid": Click("shareasale", "affiliate"),
    "ranSiteID": Click("rakuten advertising", "affiliate"),
    # Mailings: AdGuard (mc_eid, mkt_tok), https://gitlab.com/ClearURLs/rules/-/merge_requests/90 (_kx),
    # https://knowledge.hubspot.com/email/links-in-emails-or-ctas-lead-to-an-error-page (_hsenc)
    "mc_eid": Click("mailchimp", "email"),
    "mc_cid": Click("mailchimp", "email"),
    "_kx": Click("klaviyo", "email"),
    "_hsenc": Click("hubspot", "email"),
    "mkt_tok": Click("marketo", "email"),
    # Not only on ads. fbclid, igsh and igshid: links on and shared from Meta's apps, paid for or not,
    # https://fbclid-igsh.com/can-the-igsh-or-fbclid-parameters-be-dangerous/; ysclid: Yandex' results, AdGuard;
    # srsltid: Google's results for shops, https://support.google.com/merchants/answer/15191080
    "fbclid": Click("facebook", "social", is_sure=False),
    "igshid": Click("instagram", "social", is_sure=False),
    "igsh": Click("instagram", "social", is_sure=False),
    "ysclid": Click("yandex", "organic", is_sure=False),
    "srsltid": Click("google", "organic", is_sure=False),
}
