using System.Text.Json;
using PeftServer.Engine.Evaluation.Graders;

namespace PeftServer.Engine.Tests;

public sealed class GraderTests
{
    private static readonly JsonElement Item = JsonSerializer.Deserialize<JsonElement>("""{"answer": "Paris", "place": {"names": ["x", "y"]}, "number": 4}""");

    [Theory]
    [InlineData("eq", "Paris", 1)]
    [InlineData("eq", "paris", 0)]
    [InlineData("ne", "paris", 1)]
    [InlineData("like", "It is Paris.", 1)]
    [InlineData("ilike", "it is paris.", 1)]
    [InlineData("like", "it is paris.", 0)]
    public void StringCheck_Operation_HoldsOrNot(string operation, string output, double grade) =>
        Read($$$"""{"type": "string_check", "name": "a", "input": "{{ sample.output_text }}", "reference": "{{item.answer}}", "operation": "{{{operation}}}"}""")
            .Grade(new GradedSample(output, Item)).ShouldBe(grade);

    [Theory]
    [InlineData("fuzzy_match")]
    [InlineData("fuzzy_w")]
    [InlineData("fuzzy_token_set")]
    [InlineData("bleu")]
    [InlineData("gleu")]
    [InlineData("rouge_1")]
    [InlineData("rouge_5")]
    [InlineData("rouge_l")]
    public void TextSimilarity_EqualTexts_IsOne(string metric) =>
        Read($$$"""{"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "one two three four five", "evaluation_metric": "{{{metric}}}"}""")
            .Grade(new GradedSample("one two three four five", Item)).ShouldBe(1, 1e-9);

    [Fact]
    public void Meteor_EqualTexts_IsOneButForTheirOneRun() =>
        Read("""{"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "one two three four five", "evaluation_metric": "meteor"}""")
            .Grade(new GradedSample("one two three four five", Item)).ShouldBe(1 - (0.5 / 125), 1e-9);

    /// <summary>The embeddings of a small encoder: the same text is 1, another one is the cosine of their means, computed here beside it.</summary>
    [Fact]
    public void Cosine_OfTexts_IsThatOfTheirEmbeddings()
    {
        using var model = SmallModel.Bert();
        using var embeddings = new TextEmbeddings(new Dictionary<string, string> { ["small"] = model.Folder }, CPU);
        var grader = Read("""{"type": "text_similarity", "input": "{{ sample.output_text }}", "reference": "blue sky", "evaluation_metric": "cosine", "embedding_model": "small"}""");
        grader.Faults().ShouldBeEmpty();
        grader.EmbeddingModels.ShouldBe(["small"]);

        grader.Grade(new GradedSample("blue sky", Item) { Embeddings = embeddings }).ShouldBe(1, 1e-6);
        var other = grader.Grade(new GradedSample("a number of things", Item) { Embeddings = embeddings });

        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var encoder = Engine.Models.SentenceEncoder.Load(model.Folder, CPU, ScalarType.Float32);
        var tokenizer = Engine.Tokenizers.Tokenizer.Load(model.Folder);
        Tensor Vector(string text)
        {
            using var batch = Engine.Models.ForwardBatch.Packed([tokenizer.Encode(text)], [], CPU);
            return encoder.Embed(batch)[0];
        }

        var (one, two) = (Vector("blue sky"), Vector("a number of things"));
        other.ShouldBe(one.dot(two).item<float>() / (one.norm().item<float>() * two.norm().item<float>()), 1e-5);
        other.ShouldBeLessThan(0.999);
        Should.Throw<KeyNotFoundException>(() => embeddings.Cosine("other", "a", "b")).Message.ShouldContain("embedding_models");
    }

    [Theory]
    [InlineData("0.5 * exact + near / 2", 0.5)]
    [InlineData("max(exact, near) - 2 ^ 3 ^ 0", -1)]
    [InlineData("-(exact) + min(1, 2, 3) * floor(1.7)", 1)]
    public void Multi_Formula_IsComputed(string formula, double grade)
    {
        var grader = Read($$$"""
            {"type": "multi", "calculate_output": "{{{formula}}}", "graders": {
              "exact": {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.place.names.1 }}", "operation": "eq"},
              "near": {"type": "string_check", "input": "{{ sample.output_json.a }}", "reference": "{{ item.number }}", "operation": "eq"}
            }}
            """);

        grader.Faults().ShouldBeEmpty();
        grader.Grade(new GradedSample("""{"a": 4}""", Item)).ShouldBe(grade, 1e-12);
    }

    [Theory]
    [InlineData("""{"type": "python", "source": "def grade(): pass"}""", "type")]
    [InlineData("""{"type": "score_model", "model": "x"}""", "type")]
    [InlineData("""{"type": "text_similarity", "input": "a", "reference": "b", "evaluation_metric": "cosine"}""", "embedding_model")]
    [InlineData("""{"type": "text_similarity", "input": "a", "reference": "b", "evaluation_metric": "bleu", "embedding_model": "x"}""", "embedding_model")]
    [InlineData("""{"type": "multi", "graders": {"a": {"type": "text_similarity", "input": "a", "reference": "b", "evaluation_metric": "cosine"}}, "calculate_output": "a"}""", "graders.a.embedding_model")]
    [InlineData("""{"type": "string_check", "input": "{{ output }}", "reference": "b", "operation": "eq"}""", "input")]
    [InlineData("""{"type": "multi", "graders": {"a": {"type": "python"}}, "calculate_output": "a"}""", "graders.a.type")]
    [InlineData("""{"type": "multi", "graders": {}, "calculate_output": "a + 1"}""", "calculate_output")]
    [InlineData("""{"type": "multi", "graders": {}, "calculate_output": "(1 + 2"}""", "calculate_output")]
    public void Faults_OfAGrader_NameTheField(string json, string field) =>
        Read(json).Faults().ShouldHaveSingleItem().MemberNames.ShouldBe([field]);

    private static Grader Read(string json) => JsonSerializer.Deserialize<Grader>(json, PeftJson.Options)!;
}
