"""What is said in the benchmarks of the voice client, and by whom.

What constants of clients/voice/ are chosen with (DEVELOPMENT_*) is kept apart from what they are
judged with (TEST_*): neither a voice nor a sentence is in both. Many of the Korean sentences hold
words that are near to 자비스.
"""

DEVELOPMENT_VARIANTS = ("+f1", "+f3", "+m1", "+m3", "", "+m5", "+f5", "+max")
TEST_VARIANTS = (
    "+f2", "+f4", "+m2", "+m4", "+m6", "+m7", "+m8", "+michel", "+steph", "+antonio", "+linda",
    "+Andy", "+anika",
)  # fmt: skip
"""Of espeak-ng's voices."""

DEVELOPMENT_QUESTIONS = (
    "지금 몇 시예요", "프랑스의 수도는 어디예요", "오늘 날씨 어때", "음악 틀어 줘",
    "내일 일정 알려 줘", "불 좀 꺼 줘", "하늘은 왜 파란가요", "", "",
)  # fmt: skip
TEST_QUESTIONS = (
    "독일의 수도는 어디예요", "내일 비 와요", "십 분 타이머 맞춰 줘", "오늘 무슨 요일이야",
    "라디오 켜 줘", "바다는 왜 짠가요", "소리 좀 줄여 줘", "한글은 누가 만들었어요", "", "",
)  # fmt: skip

ENGLISH_QUESTIONS = (
    "what is the capital of Germany", "will it rain tomorrow", "set a timer for ten minutes",
    "what day is it today", "turn on the radio", "why is the sea salty", "turn it down a little",
    "who was Ada Lovelace", "", "",
)  # fmt: skip
ENGLISH_ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-us-nyc")

DEVELOPMENT_KOREAN = """\
오늘 아침에는 비가 조금 내렸지만 오후에는 맑아졌습니다.
저는 어제 친구와 함께 시장에 가서 사과와 배를 샀어요.
우리 서비스는 고객의 만족을 가장 중요하게 생각합니다.
이번 주말에 가족과 함께 부산으로 여행을 갈 예정입니다.
자동차 수리비가 생각보다 많이 나왔습니다.
비서가 회의 일정을 다시 잡아 주었습니다.
새로운 텔레비전을 거실에 설치했습니다.
자기 전에 따뜻한 우유를 한 잔 마시면 좋습니다.
그 사람은 정말 자비로운 마음을 가지고 있습니다.
버스를 타고 학교까지 가는 데 삼십 분이 걸립니다.
자비로 유학을 가려면 돈이 많이 필요합니다.
데이비스 씨는 미국에서 온 기자입니다.
점심으로 비빔밥을 먹을까요 아니면 냉면을 먹을까요.
스키를 타러 강원도에 다녀왔습니다.
컴퓨터가 갑자기 꺼져서 작업하던 문서를 잃어버렸어요.
내년에는 더 큰 집으로 이사하고 싶습니다.
그녀는 매일 아침 공원을 산책합니다.
선생님께서 숙제를 내일까지 하라고 하셨습니다.
커피보다 녹차를 더 좋아하는 편입니다.
아이들이 마당에서 공을 차며 놀고 있습니다.
기차가 십 분 늦게 도착한다고 합니다.
물가가 많이 올라서 생활이 어렵습니다.
제 비밀번호를 잊어버려서 다시 만들어야 해요.
자 이제 시작합시다. 모두 자리에 앉아 주세요.
잡비를 줄여야 저축을 할 수 있습니다.
차비가 없어서 걸어서 집에 왔습니다.
가습기를 틀어 놓으면 목이 덜 아픕니다.
오래된 사진을 보니 옛날 생각이 납니다.
은행에서 대출을 받으려면 서류가 필요합니다.
도서관에서는 조용히 해 주시기 바랍니다.
한국의 전통 음식은 종류가 매우 다양합니다.
경기는 연장전까지 가는 접전 끝에 끝났습니다.
정부는 새로운 정책을 발표할 예정입니다.
바다에서 헤엄치는 것은 위험할 수 있습니다.
저 비슷한 옷을 본 적이 있어요.
지난 비수기에 항공권을 싸게 샀습니다.
어머니가 김치를 담그고 계십니다.
회사에서 집까지 지하철로 한 시간 걸려요.
나는 음악을 들으면서 공부하는 것을 좋아합니다.
병원에 가서 진료를 받아 보는 것이 좋겠습니다.
""".splitlines()

DEVELOPMENT_ENGLISH = """\
The quick brown fox jumps over the lazy dog near the river bank.
Our customer service department is open from nine to five.
Travis said that the nervous driver was parked in the garage.
Could you please pass me the salt and the pepper?
The weather tomorrow will be cloudy with a chance of rain.
She has jars of spices on the shelf above the stove.
Davis and Jervis travelled to Paris last summer.
I would like to book a table for two people at seven o'clock.
The committee decided to postpone the meeting until next week.
Harvest season is a busy time for farmers in the valley.
""".splitlines()

TEST_KOREAN = """\
할머니께서 마당에 고추를 널어 말리고 계십니다.
비스킷을 자주 먹으면 이가 상할 수 있습니다.
그 회사는 자바로 만든 프로그램을 팔고 있습니다.
제비가 돌아오면 봄이 온 것입니다.
자비를 베푸는 사람에게 복이 온다고 합니다.
지도를 보면서 골목길을 한참 헤맸습니다.
벽에 비스듬히 기대어 놓은 사다리가 넘어졌어요.
택배는 오늘 저녁까지 도착할 예정이라고 합니다.
사장님은 회의실에서 손님과 이야기를 나누고 계십니다.
서비스 센터에 전화를 했더니 아무도 받지 않았어요.
다비드 상은 이탈리아의 피렌체에 있습니다.
가스비와 전기비가 지난달보다 많이 나왔네요.
감자와 당근을 잘게 썰어서 냄비에 넣으세요.
그 배우는 새 영화에서 형사 역할을 맡았습니다.
차 비슷한 것을 마셨는데 맛이 이상했어요.
주말마다 등산을 하니까 몸이 가벼워졌습니다.
동생은 군대에서 다음 달에 제대합니다.
자비출판으로 시집을 한 권 냈습니다.
길이 막혀서 약속 시간에 이십 분이나 늦었습니다.
장비스물네 개를 창고에서 꺼내 왔습니다.
세탁기에서 이상한 소리가 나서 수리 기사를 불렀어요.
이 식당은 된장찌개가 맛있기로 유명합니다.
자주 비슷비슷한 실수를 하면 안 됩니다.
눈이 많이 와서 비행기가 뜨지 못했습니다.
고양이가 창가에서 졸고 있는 모습이 귀엽습니다.
잡지에서 본 소파를 사려고 가구점에 갔습니다.
아버지는 신문을 읽고 어머니는 드라마를 보십니다.
교수님이 추천하신 책을 도서관에서 빌렸습니다.
자, 비가 그쳤으니 이제 밖으로 나갑시다.
자리에 스카프를 두고 온 것 같아요.
휴대폰 배터리가 다 되어서 연락을 못 했습니다.
찌개에 비계를 넣으면 느끼해집니다.
요즘 젊은 사람들은 결혼을 늦게 하는 편입니다.
접시를 닦다가 손을 베었습니다.
시청 앞 광장에서 음악회가 열린다고 합니다.
비자 신청서를 다시 써야 한다고 들었어요.
자전거를 타고 한강을 따라 달렸습니다.
치즈 버거와 비스트로 세트를 주문했습니다.
축구 대표팀이 두 골 차이로 이겼습니다.
제 버스가 먼저 와서 인사도 못 하고 탔어요.
우주비행사가 되는 것이 제 어릴 적 꿈이었습니다.
감기에 걸려서 하루 종일 누워 있었어요.
자비 없는 더위가 한 달째 계속되고 있습니다.
차비를 스스로 벌어서 학교에 다녔어요.
동네 약국은 일요일에도 문을 엽니다.
잡지사 비서로 일한 지 삼 년이 됐습니다.
자비심이 깊은 스님께서 절을 안내해 주셨어요.
운동 전에 준비 스트레칭을 꼭 하세요.
이모는 시골에서 사과 농사를 지으십니다.
재즈 비슷한 음악이 가게에서 흘러나왔어요.
제비뽑기로 발표 순서를 정했습니다.
나비 스카프가 옷에 잘 어울리네요.
서류를 복사해서 부장님께 드렸습니다.
가지볶음에 비스듬히 썬 파를 넣으세요.
이사하느라 잡비가 생각보다 많이 들었어요.
내비게이션이 스스로 길을 찾아 줍니다.
저녁에 미역국을 끓여 먹었습니다.
화장지 비스무리한 것을 상자에 채웠어요.
수술은 자비로 받았다고 합니다.
장비를 스무 개나 새로 주문했습니다.
바닷가에서 조개를 주웠습니다.
자기 비서를 통해 연락해 왔어요.
버스 정류장까지 걸어서 십 분 걸립니다.
서비스업에 종사하는 사람이 많아졌습니다.
""".splitlines()

TEST_ENGLISH = """\
My neighbour borrowed a ladder to clean the gutters on his roof.
The jar of biscuits was empty when the children came home.
Please remember to water the plants while we are away.
Jarvis Street runs from the harbour to the old market hall.
The train to the city leaves from platform four in ten minutes.
Nobody knew who had left the window open during the storm.
A service charge is added to every bill in this restaurant.
The museum has a large collection of maps and compasses.
He was a novice at chess, yet he played with great patience.
Can you recommend a good book about the history of music?
Charlie's advice was to sell the car before the winter.
They painted the kitchen yellow and the hallway pale green.
Four wheels good, two wheels better, the cyclists like to say.
There is a devious bend in the road just behind the bridge.
""".splitlines()
