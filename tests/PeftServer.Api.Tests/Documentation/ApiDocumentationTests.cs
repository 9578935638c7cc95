using System.Text.Json;
using Microsoft.OpenApi;
using PeftServer.Api.FineTuning;
using PeftServer.Core.Http;
using PeftServer.Engine.Adapters;

namespace PeftServer.Api.Tests.Documentation;

public sealed class ApiDocumentationTests(ApiServer server) : IClassFixture<ApiServer>
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Document_ListsEveryMethodOfPeftWithItsFieldsInWords()
    {
        var (_, document) = await server.GetAsync("/swagger/v1/swagger.json");

        var schemas = document.GetProperty("components").GetProperty("schemas");
        var methods = schemas.GetProperty("CreateJobRequest").GetProperty("properties").GetProperty("peft");
        foreach (var (name, type) in AdapterConfig.Types)
        {
            methods.GetRawText().ShouldContain($"#/components/schemas/{type.Name}");
            document.GetRawText().ShouldContain($"\"{name}\"");
        }

        var rank = schemas.GetProperty("LoraConfig").GetProperty("properties").GetProperty("lora_alpha");
        rank.GetProperty("description").GetString()!.ShouldContain("lora_alpha / r");
        schemas.GetProperty("TrainingArguments").GetProperty("properties").TryGetProperty("num_train_epochs", out _).ShouldBeTrue();
    }

    [Fact]
    public async Task Document_IsValidOpenApi()
    {
        var json = await server.Client.GetStringAsync("/swagger/v1/swagger.json", Token);

        var read = OpenApiDocument.Parse(json, "json");

        read.Diagnostic!.Errors.ShouldBeEmpty();
        read.Document!.Paths.Count.ShouldBeGreaterThan(10);
    }

    [Fact]
    public async Task Document_EveryReferenceLeadsSomewhere()
    {
        var (_, document) = await server.GetAsync("/swagger/v1/swagger.json");

        foreach (var reference in References(document).Distinct())
        {
            var target = document;
            foreach (var part in reference.Split('/').Skip(1))
            {
                target.TryGetProperty(part, out target).ShouldBeTrue(reference);
            }
        }
    }

    [Fact]
    public async Task Document_EveryBody_HasASchemaAndAnExampleThatIsAccepted()
    {
        var (_, document) = await server.GetAsync("/swagger/v1/swagger.json");

        var bodies = 0;
        foreach (var path in document.GetProperty("paths").EnumerateObject())
        {
            foreach (var operation in path.Value.EnumerateObject())
            {
                operation.Value.GetProperty("summary").GetString().ShouldNotBeNullOrEmpty($"{operation.Name} {path.Name}");
                if (!operation.Value.TryGetProperty("requestBody", out var body))
                {
                    continue;
                }

                bodies++;
                var content = body.GetProperty("content").EnumerateObject().Single();
                content.Value.TryGetProperty("schema", out _).ShouldBeTrue(path.Name);
                if (content.Name == "application/json")
                {
                    content.Value.GetProperty("examples").EnumerateObject().ShouldNotBeEmpty(path.Name);
                }
            }
        }

        bodies.ShouldBe(12); // upload, job; chat, completion, embedding, classes, scores, tags, answers, numbers; tokens and back
        var jobs = document.GetProperty("paths").GetProperty("/v1/fine_tuning/jobs").GetProperty("post").GetProperty("requestBody")
            .GetProperty("content").GetProperty("application/json").GetProperty("examples");
        foreach (var example in jobs.EnumerateObject())
        {
            var json = example.Value.GetProperty("value").GetRawText();
            var request = JsonBody<CreateJobRequest>.Parse(System.Text.Encoding.UTF8.GetBytes(json));
            JobSettings.Resolve(request, example.Value.GetProperty("value")).Faults.ShouldBeEmpty(example.Name);
        }
    }

    [Fact]
    public async Task Root_LeadsBrowsersToTheUi()
    {
        using var response = await server.Client.GetAsync("/", Token);

        response.RequestMessage!.RequestUri!.AbsolutePath.ShouldStartWith("/swagger");
        (await response.Content.ReadAsStringAsync(Token)).ShouldContain("swagger-ui");
    }

    private static IEnumerable<string> References(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Object => element.EnumerateObject().SelectMany(member =>
            member.NameEquals("$ref") && member.Value.ValueKind is JsonValueKind.String ? [member.Value.GetString()!] : References(member.Value)),
        JsonValueKind.Array => element.EnumerateArray().SelectMany(References),
        _ => [],
    };
}
