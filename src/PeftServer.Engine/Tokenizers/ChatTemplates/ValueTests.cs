using System.Collections.Frozen;
using System.Numerics;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>Jinja's tests: what may stand after <c>is</c>.</summary>
internal static class ValueTests
{
    private static readonly FrozenDictionary<string, Func<object?, CallArguments, RenderState, bool>> Tests = new Dictionary<string, Func<object?, CallArguments, RenderState, bool>>
    {
        ["defined"] = (v, _, _) => v is not UndefinedValue,
        ["undefined"] = (v, _, _) => v is UndefinedValue,
        ["none"] = (v, _, _) => v is null,
        ["boolean"] = (v, _, _) => v is bool,
        ["true"] = (v, _, _) => v is true,
        ["false"] = (v, _, _) => v is false,
        ["integer"] = (v, _, _) => v is long or BigInteger,
        ["float"] = (v, _, _) => v is double,
        ["number"] = (v, _, _) => Operators.IsNumber(v),
        ["string"] = (v, _, _) => v is TextValue,
        ["mapping"] = (v, _, _) => v is DictValue,
        ["sequence"] = (v, _, _) => v is TextValue or ListValue or DictValue,
        ["iterable"] = (v, _, _) => v is TextValue or ListValue or DictValue or UndefinedValue,
        ["callable"] = (v, _, _) => v is CallableValue,
        ["odd"] = (v, _, _) => Math.Abs(Whole(v) % 2) == 1,
        ["even"] = (v, _, _) => Whole(v) % 2 == 0,
        ["divisibleby"] = (v, a, _) => Whole(a.Require(0, "num")) is not 0 and var n
            ? Whole(v) % n == 0
            : throw new TemplateException("integer division or modulo by zero"),
        ["lower"] = (v, _, _) => IsCased(PythonText.Str(v).Text, char.IsUpper),
        ["upper"] = (v, _, _) => IsCased(PythonText.Str(v).Text, char.IsLower),
        ["eq"] = (v, a, _) => Operators.AreEqual(v, a.Require(0, "other")),
        ["ne"] = (v, a, _) => !Operators.AreEqual(v, a.Require(0, "other")),
        ["lt"] = (v, a, _) => Operators.Order(v, a.Require(0, "other"), "<") < 0,
        ["le"] = (v, a, _) => Operators.Order(v, a.Require(0, "other"), "<=") <= 0,
        ["gt"] = (v, a, _) => Operators.Order(v, a.Require(0, "other"), ">") > 0,
        ["ge"] = (v, a, _) => Operators.Order(v, a.Require(0, "other"), ">=") >= 0,
        ["in"] = (v, a, state) => Operators.Contains(a.Require(0, "seq"), v, state),
        ["sameas"] = (v, a, _) => a.Require(0, "other") is var other
            && (v is null or bool || other is null or bool ? Equals(v, other) : ReferenceEquals(v, other) || (v is long or double or TextValue && Operators.AreEqual(v, other))),
        ["escaped"] = (_, _, _) => false,
        ["filter"] = (v, _, _) => v is TextValue name && Filters.Exists(name.Text),
        ["test"] = (v, _, _) => v is TextValue name && Exists(name.Text),
    }.ToFrozenDictionary(StringComparer.Ordinal);

    private static readonly FrozenDictionary<string, string> Aliases = new Dictionary<string, string>
    {
        ["equalto"] = "eq",
        ["=="] = "eq",
        ["!="] = "ne",
        ["lessthan"] = "lt",
        ["<"] = "lt",
        ["<="] = "le",
        ["greaterthan"] = "gt",
        [">"] = "gt",
        [">="] = "ge",
    }.ToFrozenDictionary(StringComparer.Ordinal);

    public static bool Exists(string name) => Tests.ContainsKey(name) || Aliases.ContainsKey(name);

    public static bool Apply(string name, object? value, CallArguments arguments, RenderState state) =>
        Tests.TryGetValue(Aliases.GetValueOrDefault(name, name), out var test)
            ? test(value, arguments, state)
            : throw new TemplateException($"there is no test '{name}'");

    private static long Whole(object? value)
    {
        Operators.ThrowIfUndefined(value);
        return value is long or bool ? Operators.ToLong(value) : throw new TemplateException($"a whole number is needed, not {PythonText.TypeName(value)}");
    }

    // Python: at least one cased character, and none of the other case.
    private static bool IsCased(string text, Func<char, bool> otherCase) => text.Any(char.IsLetter) && !text.Any(otherCase);
}
