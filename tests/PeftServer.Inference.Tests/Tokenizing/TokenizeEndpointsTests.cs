using System.Text.Json;

namespace PeftServer.Inference.Tests.Tokenizing;

/// <summary><c>POST /v1/tokenize</c> and <c>/v1/detokenize</c> on the real host.</summary>
public sealed class TokenizeEndpointsTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/tokenize";

    [Theory]
    [InlineData("t5")] // writes
    [InlineData("bert_cls")] // reads
    [InlineData("bert")] // gives vectors
    public async Task Tokenize_Text_GivesWhatTheModelReads(string model)
    {
        var body = await host.AskAsync(Path, $$"""{"model": "{{model}}", "prompt": "Where is it", "return_token_strs": true}""");

        Tokens(body).ShouldBe([2, 4, 5, 6, 1]);
        body.GetProperty("count").GetInt32().ShouldBe(5);
        body.GetProperty("max_model_len").GetInt32().ShouldBeGreaterThan(32);
        body.GetProperty("token_strs").EnumerateArray().Select(token => token.GetString()).ShouldBe(["[CLS]", "where", "is", "it", "[SEP]"]);
        Tokens(await host.AskAsync(Path, $$"""{"model": "{{model}}", "prompt": "Where is it", "add_special_tokens": false}""")).ShouldBe([4, 5, 6]);
    }

    [Fact]
    public async Task Tokenize_Chat_CountsWhatAChatRequestCosts()
    {
        const string Messages = """[{"role": "user", "content": "Call me Ishmael."}]""";
        var chat = await host.AskAsync("/v1/chat/completions", $$"""{"model": "tiny-llama", "messages": {{Messages}}, "max_tokens": 1}""");

        var body = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "messages": {{Messages}}}""");

        body.GetProperty("count").GetInt32().ShouldBe(chat.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
        body.GetProperty("max_model_len").GetInt32().ShouldBe(1024);
        var closed = await host.AskAsync(Path, $$"""{"model": "tiny-llama", "messages": {{Messages}}, "add_generation_prompt": false}""");
        Tokens(closed).ShouldBe(Tokens(body).Take(closed.GetProperty("count").GetInt32()));
        closed.GetProperty("count").GetInt32().ShouldBeLessThan(body.GetProperty("count").GetInt32());
    }

    [Theory]
    [InlineData("Grüße, the whale — 🐋!")]
    [InlineData("")]
    public async Task Detokenize_TokensOfAText_GivesTheText(string text)
    {
        var tokens = Tokens(await host.AskAsync(Path, $$"""{"model": "tiny-llama", "prompt": "{{text}}", "add_special_tokens": false}"""));

        (await host.AskAsync("/v1/detokenize", $$"""{"model": "tiny-llama", "tokens": [{{string.Join(',', tokens)}}]}""")).GetProperty("prompt").GetString().ShouldBe(text);
    }

    [Theory]
    [InlineData(Path, """{"model": "t5"}""", "prompt", 400)]
    [InlineData(Path, """{"model": "tiny-llama", "prompt": "it", "messages": []}""", "prompt", 400)]
    [InlineData(Path, """{"model": "t5", "messages": [{"role": "user", "content": "it"}]}""", "messages", 400)]
    [InlineData(Path, """{"model": "t5", "prompt": ["it"]}""", "prompt", 400)]
    [InlineData(Path, """{"model": "nobody", "prompt": "it"}""", "model", 404)]
    [InlineData("/v1/detokenize", """{"model": "t5", "tokens": [96]}""", "tokens", 400)]
    [InlineData("/v1/detokenize", """{"model": "t5", "tokens": "it"}""", "tokens", 400)]
    public async Task Tokenize_BadRequest_NamesTheField(string path, string request, string field, int status) =>
        (await host.RefusedAsync(path, request, status)).GetProperty("param").GetString().ShouldBe(field);

    private static List<int> Tokens(JsonElement body) => [.. body.GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];
}
