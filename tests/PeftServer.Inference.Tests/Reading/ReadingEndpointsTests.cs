using System.Runtime.InteropServices;
using System.Text.Json;

namespace PeftServer.Inference.Tests.Reading;

/// <summary>Models that read, on the real host. Their numbers are held to the reference elsewhere.</summary>
public sealed class ReadingEndpointsTests(RunningHost host) : IClassFixture<RunningHost>
{
    [Fact]
    public async Task Classify_Texts_AnswersInVllmsShape()
    {
        var body = await host.AskAsync("/v1/classify", """{"model": "bert_cls", "input": ["where is it", "it is in rome today"]}""");

        body.GetProperty("id").GetString().ShouldStartWith("classify-");
        body.GetProperty("object").GetString().ShouldBe("list");
        body.GetProperty("model").GetString().ShouldBe("bert_cls");
        body.GetProperty("created").GetInt64().ShouldBeGreaterThan(0);
        var usage = body.GetProperty("usage");
        usage.GetProperty("prompt_tokens").GetInt32().ShouldBe(5 + 7);
        usage.GetProperty("total_tokens").GetInt32().ShouldBe(12);
        usage.GetProperty("completion_tokens").GetInt32().ShouldBe(0);
        body.GetProperty("data").GetArrayLength().ShouldBe(2);
        for (var i = 0; i < 2; i++)
        {
            var item = body.GetProperty("data")[i];
            var probs = Numbers(item.GetProperty("probs"));
            item.GetProperty("index").GetInt32().ShouldBe(i);
            item.GetProperty("num_classes").GetInt32().ShouldBe(3);
            probs.Sum().ShouldBe(1, 1e-6);
            item.GetProperty("label").GetString().ShouldBe($"LABEL_{Array.IndexOf(probs, probs.Max())}");
            item.TryGetProperty("score", out _).ShouldBeFalse();
        }
    }

    [Fact]
    public async Task Classify_EveryFormOfInput_MeansTheSameText()
    {
        var text = await ProbsAsync("\"where is it\"");

        (await ProbsAsync("[2, 4, 5, 6, 1]")).ShouldBe(text, 1e-6);
        (await ProbsAsync("""[[2, 4, 5, 6, 1]]""")).ShouldBe(text, 1e-6);
        (await ProbsAsync("""{"text": "where is it"}""")).ShouldBe(text, 1e-6);
        (await ProbsAsync("""{"text": "where is it", "text_pair": "rome"}""")).Zip(text, (a, b) => Math.Abs(a - b)).Max().ShouldBeGreaterThan(1e-4);
        (await ProbsAsync("\"where is it in rome\"", ", \"truncate_prompt_tokens\": 5")).ShouldBe(text, 1e-6);
        var scores = await ProbsAsync("\"where is it\"", ", \"use_activation\": false");
        var weights = scores.Select(Math.Exp).ToArray();
        weights.Select(weight => weight / weights.Sum()).ToArray().ShouldBe(text, 1e-6);
    }

    [Fact]
    public async Task TagWords_EachStrategy_TellsWhereTheyStand()
    {
        const string Text = "Where is it, in ROME?";
        var tokens = (await host.AskAsync("/v1/token_classification", $$"""{"model": "bert_tok", "input": "{{Text}}", "aggregation_strategy": "none", "ignore_labels": []}""")).GetProperty("data")[0];

        tokens.GetProperty("index").GetInt32().ShouldBe(0);
        var words = tokens.GetProperty("entities").EnumerateArray().ToList();
        words.Select(word => word.GetProperty("word").GetString()).ShouldBe(["Where", "is", "it", ",", "in", "ROME", "?"]);
        words.Select(word => word.GetProperty("index").GetInt32()).ShouldBe([1, 2, 3, 4, 5, 6, 7]);
        words.ShouldAllBe(word => word.GetProperty("entity").GetString()!.StartsWith("LABEL_") && word.ToString().IndexOf("entity_group", StringComparison.Ordinal) < 0);

        var groups = (await host.AskAsync("/v1/token_classification", $$"""{"model": "bert_tok", "input": ["{{Text}}"], "ignore_labels": []}""")).GetProperty("data")[0].GetProperty("entities");
        foreach (var group in groups.EnumerateArray())
        {
            group.GetProperty("word").GetString().ShouldBe(Text[group.GetProperty("start").GetInt32()..group.GetProperty("end").GetInt32()]);
            group.GetProperty("score").GetDouble().ShouldBeInRange(0.1, 1);
            group.GetProperty("entity_group").GetString().ShouldStartWith("LABEL_");
        }

        groups.EnumerateArray().Select(group => group.GetProperty("start").GetInt32()).Order().ShouldBe(groups.EnumerateArray().Select(group => group.GetProperty("start").GetInt32()));
    }

    [Fact]
    public async Task AnswerQuestion_LongContext_FindsItInOneOfTheWindows()
    {
        var context = string.Concat(Enumerable.Repeat("it is a ", 40)) + "in Rome";
        var body = await host.AskAsync("/v1/question_answering", $$"""{"model": "bert_qa", "question": "where is it", "context": "{{context}}", "top_k": 3, "doc_stride": 8}""");

        var answers = body.GetProperty("data").EnumerateArray().ToList();
        answers.Count.ShouldBe(3);
        answers.ShouldAllBe(answer => answer.GetProperty("answer").GetString() == context.Substring(answer.GetProperty("start").GetInt32(), answer.GetProperty("end").GetInt32() - answer.GetProperty("start").GetInt32()));
        answers.Select(answer => answer.GetProperty("score").GetDouble()).ShouldBe(answers.Select(answer => answer.GetProperty("score").GetDouble()).OrderDescending());
        body.GetProperty("usage").GetProperty("prompt_tokens").GetInt32().ShouldBeGreaterThan(122); // windows overlap

        var none = await host.AskAsync("/v1/question_answering", """{"model": "bert_qa", "question": "where is it", "context": "today", "top_k": 2, "handle_impossible_answer": true}""");
        none.GetProperty("data").EnumerateArray().Select(answer => answer.GetProperty("answer").GetString()).ShouldBe(["today", ""], ignoreOrder: true);
    }

    [Theory]
    [InlineData("bert")]
    [InlineData("bert_mlm")]
    public async Task Embed_Texts_GivesVectorsAsNumbersOrBytes(string model)
    {
        var numbers = (await host.AskAsync("/v1/embeddings", $$"""{"model": "{{model}}", "input": ["where is it", "in rome"]}""")).GetProperty("data");
        var bytes = (await host.AskAsync("/v1/embeddings", $$"""{"model": "{{model}}", "input": "in rome", "encoding_format": "base64"}""")).GetProperty("data")[0];

        numbers.GetArrayLength().ShouldBe(2);
        numbers[1].GetProperty("object").GetString().ShouldBe("embedding");
        var vector = Numbers(numbers[1].GetProperty("embedding"));
        vector.Length.ShouldBe(32);
        MemoryMarshal.Cast<byte, float>(bytes.GetProperty("embedding").GetBytesFromBase64()).ToArray().Select(value => (double)value).ToArray().ShouldBe(vector, 1e-5);
        var shortened = Numbers((await host.AskAsync("/v1/embeddings", $$"""{"model": "{{model}}", "input": "in rome", "dimensions": 4}""")).GetProperty("data")[0].GetProperty("embedding"));
        Math.Sqrt(shortened.Sum(value => value * value)).ShouldBe(1, 1e-6);
        (shortened[0] / shortened[1]).ShouldBe(vector[0] / vector[1], 1e-4);
    }

    [Theory]
    [InlineData("/v1/classify", """{"model": "bert_cls"}""", "input", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "input": "it", "messages": [{"role": "user", "content": "it"}]}""", "messages", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "messages": [{"role": "user", "content": "it"}]}""", "messages", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "input": [{"text": "it", "pair": "is"}]}""", "input[0]", "invalid_type")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "input": [[200]]}""", "input[0]", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "input": "it", "truncate_prompt_tokens": 0}""", "truncate_prompt_tokens", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "input": "it", "task_id": 2}""", "task_id", "invalid_value")]
    [InlineData("/v1/classify", """{"model": "bert_cls", "inputs": "it"}""", "inputs", "unknown_parameter")]
    [InlineData("/v1/score", """{"model": "bert_cls", "text_1": "it", "text_2": "is"}""", "model", "invalid_value")]
    [InlineData("/v1/question_answering", """{"model": "bert_qa", "question": "it", "context": "is", "top_k": 0}""", "top_k", "invalid_value")]
    [InlineData("/v1/embeddings", """{"model": "bert", "input": "it", "dimensions": 33}""", "dimensions", "invalid_value")]
    [InlineData("/v1/embeddings", """{"model": "bert", "input": "it", "encoding_format": "hex"}""", "encoding_format", "invalid_value")]
    public async Task Read_BadRequest_NamesTheField(string path, string request, string field, string code)
    {
        var error = await host.RefusedAsync(path, request);

        error.GetProperty("param").GetString().ShouldBe(field, error.ToString());
        error.GetProperty("code").GetString().ShouldBe(code);
    }

    [Theory]
    [InlineData("/v1/chat/completions", """{"model": "bert_cls", "messages": [{"role": "user", "content": "it"}]}""", "/v1/classify")]
    [InlineData("/v1/chat/completions", """{"model": "bert_mlm", "messages": [{"role": "user", "content": "it"}]}""", "/v1/embeddings")]
    [InlineData("/v1/classify", """{"model": "tiny-llama", "input": "it"}""", "/v1/chat/completions")]
    [InlineData("/v1/classify", """{"model": "t5", "input": "it"}""", "/v1/completions")]
    [InlineData("/v1/classify", """{"model": "bert_tok", "input": "it"}""", "/v1/token_classification")]
    [InlineData("/v1/embeddings", """{"model": "bert_qa", "input": "it"}""", "/v1/question_answering")]
    public async Task AnyPath_ModelOfAnotherKind_NamesThePathToUse(string path, string request, string use)
    {
        var error = await host.RefusedAsync(path, request);

        error.GetProperty("code").GetString().ShouldBe("unsupported_model");
        error.GetProperty("param").GetString().ShouldBe("model");
        error.GetProperty("message").GetString()!.ShouldEndWith($"Use POST {use}.");
    }

    [Fact]
    public async Task Classify_TextLongerThanTheModelReads_SaysHowLongAndWhatToDo()
    {
        var text = string.Concat(Enumerable.Repeat("rome ", 100));

        var error = await host.RefusedAsync("/v1/classify", $$"""{"model": "bert_cls", "input": ["it", "{{text}}"]}""");

        error.GetProperty("code").GetString().ShouldBe("context_length_exceeded");
        error.GetProperty("message").GetString()!.ShouldContain("'input[1]' has 102");
        error.GetProperty("message").GetString()!.ShouldContain("truncate_prompt_tokens");
        await host.AskAsync("/v1/classify", $$"""{"model": "bert_cls", "input": "{{text}}", "truncate_prompt_tokens": -1}""");
    }

    private async Task<double[]> ProbsAsync(string input, string rest = "") =>
        Numbers((await host.AskAsync("/v1/classify", $$"""{"model": "bert_cls", "input": {{input}}{{rest}}}""")).GetProperty("data")[0].GetProperty("probs"));

    private static double[] Numbers(JsonElement list) => [.. list.EnumerateArray().Select(number => number.GetDouble())];
}
