"""Discord's webhooks: where they may lie, how a message is posted, and what each of its answers means.

answer                                  told as
--------------------------------------  --------------------------------------------------------------
200 with the message                    Sent; held until the reset, when it was the last one of its bucket
429                                     Later, when it says; the whole channel waits, when it is global
404, 401 and 403                        Refused: the webhook is gone, and is disabled
400 and other refusals                  Refused: a fault of ours, and the webhook stays
no connection                           NotSent
5xx, time-out, a cut connection         Unknown
"""
