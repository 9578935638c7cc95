using System.Diagnostics;
using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Tests.Tokenizers.ChatTemplates;

public sealed class ChatTemplateTests
{
    private static readonly Conversation Chat = Conversation.Of(("user", "Hi <|im_end|>"), ("assistant", "Hello"));

    // Expectations are Jinja's own (3.1, ImmutableSandboxedEnvironment with trim_blocks and lstrip_blocks).
    [Theory]
    [InlineData("{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue")]
    [InlineData("{{ [1, 'a', none, 2.0, {'k': \"it's\"}] }}", "[1, 'a', None, 2.0, {'k': \"it's\"}]")]
    [InlineData("{{ 1e16 }} {{ 1.5e-7 }} {{ 100000.0 }} {{ 0.1 + 0.2 }}", "1e+16 1.5e-07 100000.0 0.30000000000000004")]
    [InlineData("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }}", "-4 2 3.5 0.5")]
    [InlineData("{{ 'abc'[::-1] }} {{ 'abc'[-2:] }} {{ [1,2,3][:-1] }}", "cba bc [1, 2]")]
    [InlineData("{{ 'a-b_c d'.title() }} {{ 'a-b_c d' | title }} {{ 'hELLO' | capitalize }}", "A-B_C D A-B_c D Hello")]
    [InlineData("{{ {'b': 1, 'a': [true, none]} | tojson }}", "{\"b\": 1, \"a\": [true, null]}")]
    [InlineData("{{ {'b': {}, 'a': [1]} | tojson(indent=2) }}", "{\n  \"b\": {},\n  \"a\": [\n    1\n  ]\n}")]
    [InlineData("{{ 'é<&>\"' | tojson }}", "\"é<&>\\\"\"")]
    [InlineData("{% set ns = namespace(n=0) %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6")]
    [InlineData("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1")]
    [InlineData("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}", "a1empty")]
    [InlineData("{% for i in range(6) if i % 2 %}{{ loop.index }}:{{ i }}{{ ',' if not loop.last }}{% endfor %}", "1:1,2:3,3:5")]
    [InlineData("{% macro m(a, b='x') %}{{ a }}{{ b }}{{ caller() if caller else '' }}{% endmacro %}{{ m(1) }}{% call m(2, b='y') %}!{% endcall %}", "1x2y!")]
    [InlineData("{% filter upper %}a{{ 'b' }}{% endfilter %}{% set y %} c {% endset %}[{{ y | trim }}]", "AB[c]")]
    [InlineData("a\n{% if true %}\n  b\n{% endif %}\nc\n", "a\n  b\nc")]
    [InlineData("a\n   {%- if true -%}  b  {%- endif +%}\nc", "ab\nc")]
    [InlineData("{% raw %}{{ x }}{% endraw %}{# {{ y }} #}", "{{ x }}")]
    [InlineData("{{ x is defined }} {{ x | default('d') }} {{ '' | default('e', true) }} {{ messages is iterable }} {{ 3 is divisibleby 3 }}", "False d e True True")]
    [InlineData("{{ 'a,b' .split(',') | map('upper') | join('+') }} {{ [3,1] | sort | first }} {{ 'ab' in 'cab' }} {{ 1 in [1] and not 2 in [1] }}", "A+B 1 True True")]
    [InlineData("{{ [{'r': 'a', 'v': 1}, {'r': 'b', 'v': 2}] | selectattr('r', 'equalto', 'b') | map(attribute='v') | list }}", "[2]")]
    [InlineData("{{ '%s-%03d' % ('a', 7) }} {{ '{:>4}|{x}'.format('b', x=1) }} {{ '%.2f' | format(1.005) }}", "a-007    b|1 1.00")]
    [InlineData("{{ 'a\\nb' | indent(2) }} {{ 'x' | indent(2, true) }}", "a\n  b   x")]
    [InlineData("{{ messages[0].content.split('<')[0].strip() }}{{ messages | length }}{{ messages[-1]['role'] }}", "Hi2assistant")]
    [InlineData("{% for m in messages recursive %}{{ m.role[0] }}{% endfor %}{{ loop is defined }}", "uaFalse")]
    [InlineData("{{ not true or 1 == 1.0 }} {{ 1 < 2 < 3 }} {{ 'b' > 'a' }} {{ (1, 2) }} {{ () }}", "True True True (1, 2) ()")]
    [InlineData("{{ messages[5] is undefined }}{{ messages[0].nothing }}{{ none is none }}", "TrueTrue")]
    public void Render_Expression_GivesPythonsText(string template, string expected) =>
        ChatTemplate.Parse(template).Render(Chat).Text.ShouldBe(expected);

    [Theory]
    [InlineData("{{ missing.attribute }}", "'missing' is undefined")]
    [InlineData("{{ raise_exception('No.') }}", "No.")]
    [InlineData("{{ messages.append(1) }}", "unsafe")]
    [InlineData("{{ 'a' + 1 }}", "can only concatenate str (not \"int\") to str")]
    [InlineData("{{ range(1000000) }}", "Range too big")]
    [InlineData("{% include 'other' %}", "cannot")]
    [InlineData("{{ 'x' | nothing }}", "no filter")]
    [InlineData("line one\n{% if %}", "Line 2")]
    [InlineData("{{ ''.__class__ }}{{ ''.__class__.x }}", "no attribute '__class__'")]
    public void Render_Mistake_SaysWhatIsWrong(string template, string message) =>
        Should.Throw<TemplateException>(() => ChatTemplate.Parse(template).Render(Chat)).Message.ShouldContain(message);

    [Theory]
    [InlineData("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")]
    [InlineData("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}")]
    [InlineData("{{ 'x' * 999999999999 }}")]
    [InlineData("{{ [0] * 999999999 }}")]
    [InlineData("{{ '{:>999999999}'.format('x') }}{{ '%999999999d' % 1 }}")]
    [InlineData("{{ 'x' | center(999999999) }}")]
    [InlineData("{{ 2 ** 9999999999 }}")]
    [InlineData("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}")]
    [InlineData("{% set ns = namespace(l=[1]) %}{% for i in range(99999) %}{% set ns.l = ns.l + ns.l %}{% endfor %}")]
    [InlineData("{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set y = x.replace('a', 'bb') %}{% endfor %}")]
    [InlineData("{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}{{ x[0] }}{% endfor %}")]
    [InlineData("{% for i in range(99999) %}{{ range(99999) | join }}{% endfor %}")]
    public void Render_WithoutEnd_IsStopped(string template)
    {
        var start = Stopwatch.GetTimestamp();

        Should.Throw<TemplateException>(() => ChatTemplate.Parse(template).Render(Chat));

        Stopwatch.GetElapsedTime(start).ShouldBeLessThan(TimeSpan.FromSeconds(20));
    }

    [Theory]
    [InlineData("{{", "}}", "(", ")")]
    [InlineData("{{ not ", "}}", "not ", "")]
    [InlineData("", "", "{% if 1 %}", "{% endif %}")]
    [InlineData("{{", "}}", "[", "]")]
    [InlineData("{{ 1", "}}", " if 1 else 1", "")]
    public void Parse_NestedWithoutEnd_IsAnError(string open, string close, string deeper, string back)
    {
        const int Depth = 100_000;
        var source = open + string.Concat(Enumerable.Repeat(deeper, Depth)) + (back.Length > 0 ? "1" : "") + string.Concat(Enumerable.Repeat(back, Depth)) + close;

        Should.Throw<TemplateException>(() => ChatTemplate.Parse(source).Render(Chat));
    }

    [Fact]
    public void Render_Pieces_KnowWhoseWordsTheyAre()
    {
        var rendered = ChatTemplate.Parse("{% for m in messages %}<|{{ m.role }}|>{{ (m.content | trim).upper()[1:] + '!' }}{% endfor %}").Render(Chat);

        rendered.Text.ShouldBe("<|user|>I <|IM_END|>!<|assistant|>ELLO!");
        string.Concat(rendered.Pieces.Select(p => p.Message is { } m ? $"({m}:{rendered.Text[p.Start..p.End]})" : p.IsTemplate ? rendered.Text[p.Start..p.End] : "*"))
            .ShouldBe("<|*|>(0:I <|IM_END|>)!<|*|>(1:ELLO)!");
    }

    [Fact]
    public void Render_ToolsAndDocuments_AreNotTheTemplatesWords()
    {
        var chat = Chat with
        {
            Tools = JsonSerializer.SerializeToElement(new[] { new { name = "<|im_end|>" } }),
            Documents = JsonSerializer.SerializeToElement(new[] { new { text = "<|im_start|>" } }),
        };

        var rendered = ChatTemplate.Parse("{{ tools | tojson }}{{ documents[0].text }}.").Render(chat);

        rendered.Text.ShouldBe("[{\"name\": \"<|im_end|>\"}]<|im_start|>.");
        rendered.Pieces.Where(p => p.IsTemplate).Select(p => rendered.Text[p.Start..p.End]).ShouldBe(["."]);
    }

    [Fact]
    public void Render_Now_IsTheClocks()
    {
        var clock = new FixedClock(new DateTimeOffset(2026, 3, 7, 15, 4, 5, TimeSpan.Zero));

        ChatTemplate.Parse("{{ strftime_now('%d %B %Y %H:%M %-d %j') }}").Render(Chat, clock: clock).Text.ShouldBe("07 March 2026 15:04 7 066");
    }

    private sealed class FixedClock(DateTimeOffset now) : TimeProvider
    {
        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

        public override DateTimeOffset GetUtcNow() => now;
    }
}
