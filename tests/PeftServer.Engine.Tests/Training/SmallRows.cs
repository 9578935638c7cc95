using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Eight rows of every kind that a method learns from, of lengths that differ.</summary>
internal static class SmallRows
{
    public static readonly string[] Texts = [.. Enumerable.Range(0, 8).Select(i =>
        $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    private static readonly string[] Pairs = [.. Enumerable.Range(0, 8).Select(i => $$"""{"prompt": "Colour {{i}}: ", "chosen": "blue {{i}}", "rejected": "a very long red {{i}}"}""")];

    private static readonly string[] Classes = [.. Enumerable.Range(0, 8).Select(i => $$"""{"text": "A mail of number {{i}}", "label": "{{(i % 3 == 0 ? "odd" : "even")}}"}""")];

    private static readonly string[] Alike = [.. Enumerable.Range(0, 8).Select(i => $$"""{"anchor": "number {{i}}", "positive": "the number {{i}}"}""")];

    public static string[] Of(TrainingMethodType type) => type switch
    {
        TrainingMethodType.Supervised => Texts,
        TrainingMethodType.Classification => Classes,
        TrainingMethodType.Embedding => Alike,
        _ => Pairs,
    };
}
