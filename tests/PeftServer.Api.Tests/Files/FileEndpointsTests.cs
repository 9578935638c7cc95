using System.Net;
using System.Text;
using System.Text.Json;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Files;

public sealed class FileEndpointsTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    private const string Chat = """{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}""";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Upload_GoodFile_IsOpenAIsFileAndComesBackByteForByte()
    {
        var content = Chat + "\n" + Chat.Replace("Hello", "Grüß dich 🦙", StringComparison.Ordinal) + "\n";

        var (status, file) = await server.UploadAsync(content, "mails.jsonl");

        status.ShouldBe(HttpStatusCode.OK);
        file.GetProperty("object").GetString().ShouldBe("file");
        file.GetProperty("bytes").GetInt64().ShouldBe(Encoding.UTF8.GetByteCount(content));
        file.GetProperty("filename").GetString().ShouldBe("mails.jsonl");
        file.GetProperty("purpose").GetString().ShouldBe("fine-tune");
        file.GetProperty("status").GetString().ShouldBe("processed");
        file.GetProperty("created_at").ValueKind.ShouldBe(JsonValueKind.Number);
        var id = file.GetProperty("id").GetString()!;
        id.ShouldStartWith("file-");

        (await server.GetAsync($"/v1/files/{id}")).Body.GetRawText().ShouldBe(file.GetRawText());
        using var download = await server.Client.GetAsync($"/v1/files/{id}/content", Token);
        (await download.Content.ReadAsStringAsync(Token)).ShouldBe(content);
        download.Content.Headers.ContentDisposition!.FileName.ShouldBe("mails.jsonl");
        download.Headers.GetValues("X-Content-Type-Options").ShouldBe(["nosniff"]);
    }

    [Fact]
    public async Task Upload_FileBeforePurpose_IsRead()
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent(Chat), "file", "train.jsonl" },
            { new StringContent("fine-tune"), "purpose" },
        };

        using var response = await server.Client.PostAsync("/v1/files", form, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Upload_BadLine_Returns400NamingLineRuleAndFix()
    {
        var (status, body) = await server.UploadAsync($"{Chat}\nno json at all\n{Chat}\n");

        status.ShouldBe(HttpStatusCode.BadRequest);
        var error = body.GetProperty("error");
        error.GetProperty("type").GetString().ShouldBe("invalid_request_error");
        error.GetProperty("param").GetString().ShouldBe("file");
        error.GetProperty("code").GetString().ShouldNotBeNullOrEmpty();
        error.GetProperty("message").GetString()!.ShouldContain("Line 2");
    }

    [Fact]
    public async Task Upload_ManyBadLines_ListsTheFirst100AndTheTotal()
    {
        var (_, body) = await server.UploadAsync(string.Concat(Enumerable.Repeat("oops\n", 250)));

        var error = body.GetProperty("error");
        error.GetProperty("details").GetArrayLength().ShouldBe(100);
        error.GetProperty("details")[6].GetProperty("line").GetInt64().ShouldBe(7);
        error.GetProperty("total").GetInt32().ShouldBe(250);
    }

    [Theory]
    [InlineData("purpose", "batch", "purpose", "fine-tune")]
    [InlineData("porpose", "fine-tune", "porpose", "Did you mean 'purpose'?")]
    [InlineData("expires_after[seconds]", "3600", "expires_after", "Leave it out")]
    public async Task Upload_WrongField_Returns400NamingIt(string field, string value, string param, string remedy)
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent(value), field },
            { new StringContent(Chat), "file", "train.jsonl" },
        };

        using var response = await server.Client.PostAsync("/v1/files", form, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        var error = (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error");
        error.GetProperty("param").GetString().ShouldBe(param);
        error.GetProperty("message").GetString()!.ShouldContain(remedy);
    }

    [Fact]
    public async Task Upload_NoFile_Returns400NamingIt()
    {
        using var form = new MultipartFormDataContent { { new StringContent("fine-tune"), "purpose" } };

        using var response = await server.Client.PostAsync("/v1/files", form, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        (await response.Content.ReadAsStringAsync(Token)).ShouldContain("lacks the field 'file'");
    }

    [Theory]
    [InlineData("application/json", "{}", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("multipart/form-data", "x", HttpStatusCode.BadRequest)]
    [InlineData("multipart/form-data; boundary=abc", "--abc\r\nbroken", HttpStatusCode.BadRequest)]
    public async Task Upload_NoForm_IsRefusedInWords(string contentType, string content, HttpStatusCode expected)
    {
        using var body = new StringContent(content);
        body.Headers.ContentType = System.Net.Http.Headers.MediaTypeHeaderValue.Parse(contentType);

        using var response = await server.Client.PostAsync("/v1/files", body, Token);

        response.StatusCode.ShouldBe(expected);
        (await response.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("error").GetProperty("message").GetString().ShouldNotBeNullOrEmpty();
    }

    [Fact]
    public async Task Upload_LargerThanTheLimit_Returns413()
    {
        await using var small = await ApiServer.StartAsync(cluster, ("Storage:MaxFileBytes", "1000"));

        var (status, body) = await small.UploadAsync(string.Concat(Enumerable.Repeat(Chat + "\n", 20)));

        status.ShouldBe(HttpStatusCode.RequestEntityTooLarge);
        body.GetProperty("error").GetProperty("message").GetString()!.ShouldContain("1000 bytes");
    }

    [Theory]
    [InlineData("C:\\data\\rows.jsonl", "rows.jsonl")]
    [InlineData("../../etc/passwd", "passwd")]
    public async Task Upload_FilenameWithFolders_KeepsTheLastPart(string sent, string kept)
    {
        var (_, file) = await server.UploadAsync(Chat, sent);

        file.GetProperty("filename").GetString().ShouldBe(kept);
    }

    [Fact]
    public async Task List_Pages_GiveEveryFileOnceNewestFirst()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var ids = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            ids.Insert(0, await own.UploadChatsAsync());
        }

        var seen = new List<string>();
        for (var after = ""; ;)
        {
            var (_, page) = await own.GetAsync($"/v1/files?limit=2{after}");
            var data = page.GetProperty("data").EnumerateArray().Select(file => file.GetProperty("id").GetString()!).ToList();
            page.GetProperty("first_id").GetString().ShouldBe(data[0]);
            page.GetProperty("last_id").GetString().ShouldBe(data[^1]);
            seen.AddRange(data);
            if (!page.GetProperty("has_more").GetBoolean())
            {
                break;
            }

            after = $"&after={data[^1]}";
        }

        seen.ShouldBe(ids);
        var (_, ascending) = await own.GetAsync("/v1/files?order=asc&purpose=fine-tune");
        ascending.GetProperty("data").EnumerateArray().Select(file => file.GetProperty("id").GetString()!).ShouldBe(Enumerable.Reverse(ids));
        var (_, none) = await own.GetAsync("/v1/files?purpose=batch");
        none.GetProperty("data").GetArrayLength().ShouldBe(0);
        none.GetProperty("first_id").ValueKind.ShouldBe(JsonValueKind.Null);
        none.GetProperty("has_more").GetBoolean().ShouldBeFalse();
    }

    [Theory]
    [InlineData("limit=0", "limit")]
    [InlineData("limit=10001", "limit")]
    [InlineData("limit=many", "limit")]
    [InlineData("order=sideways", "order")]
    [InlineData("after=file-none", "after")]
    public async Task List_WrongPaging_Returns400NamingTheParameter(string query, string param)
    {
        var (status, body) = await server.GetAsync($"/v1/files?{query}");

        status.ShouldBe(HttpStatusCode.BadRequest);
        body.GetProperty("error").GetProperty("param").GetString().ShouldBe(param);
    }

    [Fact]
    public async Task Delete_File_IsGone()
    {
        var id = await server.UploadChatsAsync();

        using var response = await server.Client.DeleteAsync($"/v1/files/{id}", Token);

        var body = await response.Content.ReadFromJsonAsync<JsonElement>(Token);
        body.GetRawText().ShouldBe($$"""{"id":"{{id}}","object":"file","deleted":true}""");
        (await server.GetAsync($"/v1/files/{id}")).Status.ShouldBe(HttpStatusCode.NotFound);
        (await server.GetAsync($"/v1/files/{id}/content")).Status.ShouldBe(HttpStatusCode.NotFound);
    }
}
